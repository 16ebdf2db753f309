//! Rows of table `pairs`: one for each open key, one for each end that waits.
//!
//! In: what is known of a key. Out: bytes, and back. Invariant: a key's rows lie beside each other, the open one first;
//! no bytes make the decoder panic or allocate more than they hold.
//!
//! ```text
//! key   = XXH3-128 of (XXH3-64 of the pair's name:u64, XXH3-128 of the key:u128), big-endian
//!         [of a waiting end: 0x01 time:i64 big-endian, sign flipped]
//! value = start:i64 seen:i64 name_len:u8 name feeds:u8 (role:u8 id:u32 scale:f64)*
//! ```
//!
//! Of a waiting end `start` is its own time and there are no feeds. A name of over 255 bytes is cut.

use super::PairRole;
use super::sets::StoredFeed;
use crate::event::SeriesId;
use crate::store::series::{Reader, cut_text, decode_whole};

/// A key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct RowKey {
    key: [u8; 16],
    /// Time of a waiting end.
    end: Option<[u8; 8]>,
}

impl RowKey {
    /// The bytes in the file.
    pub(in crate::store) fn to_bytes(self) -> Vec<u8> {
        let mut out = self.key.to_vec();
        if let Some(end) = self.end {
            out.push(1);
            out.extend_from_slice(&end);
        }
        out
    }
}

/// A row that the next commit writes or deletes.
pub(super) struct RowChange {
    /// True when the file has no such row.
    pub(super) is_fresh: bool,
    /// `None` deletes.
    pub(super) content: Option<Vec<u8>>,
}

/// What a value says.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) start: i64,
    pub(super) seen: i64,
    pub(super) name: String,
    pub(super) feeds: Vec<StoredFeed>,
}

pub(super) fn open_key(key: u128) -> RowKey {
    RowKey { key: key.to_be_bytes(), end: None }
}

pub(super) fn early_key(key: u128, end: i64) -> RowKey {
    RowKey { key: key.to_be_bytes(), end: Some((end ^ i64::MIN).to_be_bytes()) }
}

/// The key, and the time of a waiting end.
pub(super) fn key_of(bytes: &[u8]) -> Option<(u128, Option<i64>)> {
    let (key, rest) = bytes.split_first_chunk()?;
    let key = u128::from_be_bytes(*key);
    match rest {
        [] => Some((key, None)),
        [1, end @ ..] => Some((key, Some(i64::from_be_bytes(end.try_into().ok()?) ^ i64::MIN))),
        _ => None,
    }
}

pub(super) fn encode(name: &str, start: i64, seen: i64, feeds: &[StoredFeed]) -> Vec<u8> {
    let name = cut_text(name, 255);
    let mut out = Vec::with_capacity(18 + name.len() + feeds.len() * 13);
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&seen.to_le_bytes());
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    out.push(u8::try_from(feeds.len()).expect("a pair feeds fewer than 256 metrics"));
    for feed in feeds {
        out.push(feed.role as u8);
        out.extend_from_slice(&feed.id.0.to_le_bytes());
        out.extend_from_slice(&feed.scale.to_le_bytes());
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<Row> {
    decode_whole(bytes, |reader: &mut Reader<'_>| {
        let (start, seen) = (reader.i64()?, reader.i64()?);
        let len = reader.u8()?;
        let name = (0..len).map(|_| reader.u8()).collect::<Option<Vec<u8>>>()?;
        let count = reader.u8()?;
        let feed = |reader: &mut Reader<'_>| {
            let role = PairRole::from_code(reader.u8()?)?;
            Some(StoredFeed { role, id: SeriesId(reader.u32()?), scale: reader.u64()? })
        };
        let feeds = (0..count).map(|_| feed(reader)).collect::<Option<Vec<_>>>()?;
        Some(Row { start, seen, name: String::from_utf8(name).ok()?, feeds })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_and_keys_are_read_back(
            key: u128, end: i64, start: i64, seen: i64, name in "[a-zä]{0,40}",
            feeds in prop::collection::vec((0u8..3, any::<u32>(), any::<u64>()), 0..5),
        ) {
            let feeds: Vec<StoredFeed> = feeds
                .into_iter()
                .map(|(role, id, scale)| StoredFeed { role: PairRole::from_code(role).expect("a role"), id: SeriesId(id), scale })
                .collect();
            let bytes = encode(&name, start, seen, &feeds);
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(decode(&bytes), Some(Row { start, seen, name, feeds }));
            prop_assert_eq!(key_of(&open_key(key).to_bytes()), Some((key, None)));
            prop_assert_eq!(key_of(&early_key(key, end).to_bytes()), Some((key, Some(end))));
        }

        #[test]
        fn any_bytes_are_a_row_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (decode(&bytes), key_of(&bytes));
        }
    }
}
