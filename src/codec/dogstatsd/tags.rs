//! Taking a line's tags apart.
//!
//! In: the raw text after `#`. Out: key and value pairs in their order. Owns nothing. Invariant: nothing is
//! refused here; which keys are reserved and which values are empty is decided where labels are built.

/// The pairs of a comma list: a tag is split at its first `:`, a bare tag is `true`, empty tags are skipped.
pub fn tags(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (tag, tail) = match memchr::memchr(b',', rest) {
                Some(comma) => (&rest[..comma], &rest[comma + 1..]),
                None => (rest, &[][..]),
            };
            rest = tail;
            if !tag.is_empty() {
                return Some(match memchr::memchr(b':', tag) {
                    Some(colon) => (&tag[..colon], &tag[colon + 1..]),
                    None => (tag, &b"true"[..]),
                });
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    fn check(raw: &str, expected: &[(&str, &str)]) {
        let text = |bytes| std::str::from_utf8(bytes).expect("the tests use text");
        let found: Vec<_> = super::tags(raw.as_bytes()).map(|(k, v)| (text(k), text(v))).collect();
        assert_eq!(found, expected, "{raw}");
    }

    #[test]
    fn tags_split_at_the_first_colon_and_bare_tags_are_true() {
        check("", &[]);
        check("a:b", &[("a", "b")]);
        check("region:eu-west,host:web-0123,code:200", &[("region", "eu-west"), ("host", "web-0123"), ("code", "200")]);
        check("url:http://x:80/,k:", &[("url", "http://x:80/"), ("k", "")]);
        check("canary,a:b,k2", &[("canary", "true"), ("a", "b"), ("k2", "true")]);
        check(",,a:b,,c,", &[("a", "b"), ("c", "true")]);
        check(":v", &[("", "v")]);
        check("ключ:значение", &[("ключ", "значение")]);
    }
}
