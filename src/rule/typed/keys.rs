//! Which field a key of an event is: first guessed from the order the producer sends, else looked up.
//!
//! In: key bytes, level by level. Out: a field, or the node of a nested object. Owns: the tree of keys, in the plan; the
//! order last seen, in the decoder. Invariant: a wrong guess costs a lookup and nothing else.

use super::EventSpec;
use hashbrown::HashMap;

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A field, by its place in the schema.
    Field(usize),
    /// An object that holds fields: the place of its [`KeyNode`].
    Nested(usize),
}

/// The keys of one object.
#[derive(Debug, Default)]
pub struct KeyNode {
    entries: Vec<(Box<[u8]>, Key)>,
    by_key: HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>,
}

impl KeyNode {
    /// What a key leads to; `None` for one that no field names.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<Key> {
        self.by_key.get(key).map(|at| self.entries[*at].1)
    }

    fn insert(&mut self, key: &str, leads_to: Key) {
        self.by_key.insert(key.as_bytes().into(), self.entries.len());
        self.entries.push((key.as_bytes().into(), leads_to));
    }
}

/// Builds the tree; its root is node 0.
///
/// # Errors
/// Two fields with one path, or one that is both a value and an object.
pub(super) fn tree(event: &EventSpec) -> Result<Box<[KeyNode]>, String> {
    let mut nodes = vec![KeyNode::default()];
    for (at, field) in event.fields.iter().enumerate() {
        let clash = || format!("event {:?}: the path {:?} is taken", event.name, field.path.join("."));
        let (last, before) = field.path.split_last().ok_or_else(clash)?;
        let mut node = 0;
        for key in before {
            node = match nodes[node].find(key.as_bytes()) {
                Some(Key::Nested(next)) => next,
                Some(Key::Field(_)) => return Err(clash()),
                None => {
                    nodes.push(KeyNode::default());
                    let next = nodes.len() - 1;
                    nodes[node].insert(key, Key::Nested(next));
                    next
                }
            };
        }
        if nodes[node].find(last.as_bytes()).is_some() {
            return Err(clash());
        }
        nodes[node].insert(last, Key::Field(at));
    }
    Ok(nodes.into())
}

/// The order in which the top keys of an event last came: a producer writes them in one order.
#[derive(Debug, Default)]
pub struct KeyOrder {
    /// By entry, and for the first key at the end: the entry that followed it.
    next: Vec<usize>,
    last: usize,
}

impl KeyOrder {
    /// Begins an event whose top keys are those of `root`.
    #[inline]
    pub fn begin(&mut self, root: &KeyNode) {
        if self.next.len() != root.entries.len() + 1 {
            self.next = (1..=root.entries.len()).chain([0]).collect();
        }
        self.last = root.entries.len();
    }

    /// As [`KeyNode::find`] of the same root.
    #[inline]
    pub fn find(&mut self, root: &KeyNode, key: &[u8]) -> Option<Key> {
        let guess = self.next[self.last];
        if let Some((known, leads_to)) = root.entries.get(guess)
            && **known == *key
        {
            self.last = guess;
            return Some(*leads_to);
        }
        let at = *root.by_key.get(key)?;
        self.next[self.last] = at;
        self.last = at;
        Some(root.entries[at].1)
    }
}
