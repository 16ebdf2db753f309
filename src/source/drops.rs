//! What the kernel dropped on our own UDP sockets.
//!
//! In: the inodes of the sockets. Out: how many datagrams each lost since it was bound. Owns nothing.
//! The figure is the socket's own drop counter, the same one that `SO_RXQ_OVFL` attaches to a datagram; read
//! here, it also shows the drops after the last datagram, and a receive stays a plain `recv`. Unix datagram
//! sockets have none: their senders wait or are refused.

/// Pairs of inode and drops, for the sockets that were found; the drops are modulo 2^32.
pub(super) fn udp_drops(inodes: &[u64]) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    for path in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        if let Ok(text) = std::fs::read_to_string(path) {
            find(&text, inodes, &mut found);
        }
    }
    found
}

/// Columns of `/proc/net/udp` (Linux, `udp4_format_sock`): the tenth is the inode, the last the drops.
fn find(text: &str, inodes: &[u64], found: &mut Vec<(u64, u32)>) {
    for line in text.lines().skip(1) {
        let mut columns = line.split_ascii_whitespace();
        let inode = columns.nth(9).and_then(|word| word.parse().ok());
        let drops = columns.next_back().and_then(|word| word.parse().ok());
        if let (Some(inode), Some(drops)) = (inode, drops)
            && inodes.contains(&inode)
        {
            found.push((inode, drops));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_kernel() {
        let text = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n\
                    \x20 2261: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48761 2 0000000000000000 7         \n\
                    \x20 2262: 0100007F:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48762 2 0000000000000000 4294967295\n";
        let mut found = Vec::new();
        find(text, &[48762, 48761, 1], &mut found);
        assert_eq!(found, [(48761, 7), (48762, u32::MAX)]);
    }
}
