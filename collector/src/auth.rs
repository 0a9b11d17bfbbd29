//! The bearer token that callers off this machine must show.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::fmt;

/// A secret that is never printed and is compared in constant time.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    pub fn new(secret: &str) -> Self {
        Self(secret.as_bytes().into())
    }

    /// Whether a request carries this token: as `Authorization: Bearer …`, or as the password of basic
    /// authentication, which is what a browser can ask its user for.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let Some(space) = memchr::memchr(b' ', shown) else { return false };
        let (scheme, secret) = (&shown[..space], shown[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.is(secret);
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            let Ok(pair) = BASE64_STANDARD.decode(secret) else { return false };
            return memchr::memchr(b':', &pair).is_some_and(|colon| self.is(&pair[colon + 1..]));
        }
        false
    }

    /// Looks at every byte whatever the first ones are, so that the time taken tells nothing but the length.
    fn is(&self, shown: &[u8]) -> bool {
        shown.len() == self.0.len()
            && self.0.iter().zip(shown).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(header: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        Token::new("s3cret").allows(&headers)
    }

    #[test]
    fn only_the_exact_token_is_allowed() {
        assert!(allowed("Bearer s3cret"));
        assert!(allowed("bearer s3cret"));
        assert!(allowed("Basic YW55Ym9keTpzM2NyZXQ="), "as the password of anybody");
        for wrong in [
            "Bearer s3cre",
            "Bearer s3cret2",
            "Bearer S3cret",
            "Basic s3cret",
            "s3cret",
            "Bearer ",
            "",
        ] {
            assert!(!allowed(wrong), "{wrong:?}");
        }
        assert!(!Token::new("s3cret").allows(&HeaderMap::new()));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("s3cret")), "Token(…)");
    }
}
