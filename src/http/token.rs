//! The bearer token: held, compared, never shown.
//!
//! In: the secret once, then `Authorization` headers. Out: allowed or not. Invariant: how long a comparison
//! takes depends neither on where two tokens differ nor on how long they are.

use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Longest token. Both sides are padded to it, so it is also the cost of every comparison.
const TOKEN_BYTES_MAX: usize = 256;

/// The secret that guards every route but liveness and readiness.
#[derive(Clone)]
pub struct Token {
    padded: [u8; TOKEN_BYTES_MAX],
    length: u64,
}

/// Who may ask what.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Guards every route but liveness and readiness; `None` lets everybody ask.
    pub reader: Option<Token>,
    /// Whoever holds it may also reset series; `None` lets nobody.
    pub admin: Option<Token>,
}

impl Tokens {
    /// True when an `Authorization` header opens the routes that read.
    pub(super) fn admit_reader(&self, authorization: Option<&[u8]>) -> bool {
        // Both are compared whatever the first says, so that the time tells nothing.
        let is_reader = self.reader.as_ref().is_none_or(|token| token.admits(authorization));
        is_reader | self.admit_admin(authorization)
    }

    /// True when it opens those that change what is shown.
    pub(super) fn admit_admin(&self, authorization: Option<&[u8]>) -> bool {
        self.admin.as_ref().is_some_and(|token| token.admits(authorization))
    }
}

impl From<Option<Token>> for Tokens {
    fn from(reader: Option<Token>) -> Tokens {
        Tokens { reader, admin: None }
    }
}

/// Why a secret cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing but white space; no token at all is said by leaving it out.
    #[error("the token is empty")]
    Empty,
    /// Over 256 bytes.
    #[error("the token has {0} bytes; at most {TOKEN_BYTES_MAX} are read")]
    TooLong(usize),
    /// Something that no `Authorization` header can carry.
    #[error("the token holds a byte that is not visible ASCII")]
    NotVisible,
}

impl Token {
    /// Takes the text of a token file; white space around it is not part of it.
    ///
    /// # Errors
    /// When no client could send it.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotVisible);
        }
        Ok(Token::padded(text.as_bytes()))
    }

    /// Pads; of a longer text only the length and the first bytes stay, and the length makes it unequal.
    fn padded(text: &[u8]) -> Token {
        let mut padded = [0; TOKEN_BYTES_MAX];
        let kept = text.len().min(TOKEN_BYTES_MAX);
        padded[..kept].copy_from_slice(&text[..kept]);
        Token { padded, length: text.len() as u64 }
    }

    /// True for the same secret.
    pub fn is_same(&self, other: &Token) -> bool {
        (self.padded.ct_eq(&other.padded) & self.length.ct_eq(&other.length)).into()
    }

    /// True when an `Authorization` header carries this token. The scheme's name is public and compared plainly.
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, credentials)) = authorization.and_then(|header| header.split_at_checked(7)) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let given = Token::padded(credentials.trim_ascii());
        let same: Choice = self.padded.ct_eq(&given.padded) & self.length.ct_eq(&given.length);
        same.into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_only_itself() {
        let token = Token::new(" s3cret\n").unwrap();
        for (header, expected) in [
            ("Bearer s3cret", true),
            ("bearer  s3cret ", true),
            ("Bearer s3cre", false),
            ("Bearer s3crett", false),
            ("Bearer s3cret\0", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic s3cret", false),
            ("s3cret", false),
            ("", false),
        ] {
            assert_eq!(token.admits(Some(header.as_bytes())), expected, "{header:?}");
        }
        assert!(!token.admits(None));
        assert!(!token.admits(Some(b"Bearer \xff\xfe")));
    }

    #[test]
    fn the_longest_is_compared_whole_and_longer_ones_differ() {
        let text = "x".repeat(TOKEN_BYTES_MAX);
        let token = Token::new(&text).unwrap();
        assert!(token.admits(Some(format!("Bearer {text}").as_bytes())));
        assert!(!token.admits(Some(format!("Bearer {text}x").as_bytes())));
        assert!(!token.admits(Some(format!("Bearer {}", &text[1..]).as_bytes())));
        assert_eq!(Token::new(&format!("{text}x")).unwrap_err(), TokenError::TooLong(257));
    }

    #[test]
    fn refuses_what_cannot_be_sent_and_never_prints() {
        assert_eq!(Token::new(" \n").unwrap_err(), TokenError::Empty);
        assert_eq!(Token::new("a b").unwrap_err(), TokenError::NotVisible);
        assert_eq!(Token::new("ä").unwrap_err(), TokenError::NotVisible);
        assert_eq!(format!("{:?}", Token::new("s3cret").unwrap()), "Token(..)");
    }
}
