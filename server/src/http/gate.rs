//! Who may call.

use axum::http::{HeaderMap, StatusCode, header};

use super::failure::Problem;

/// Lets requests in: those that show the token, or all.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The hash of the token; `None` lets everybody in.
    token: Option<blake3::Hash>,
}

impl Gate {
    /// Lets in whoever shows this token.
    pub(crate) fn token(token: &str) -> Self {
        Self { token: Some(blake3::hash(token.as_bytes())) }
    }

    /// Lets everybody in.
    pub(crate) fn open() -> Self {
        Self { token: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.token.is_none()
    }

    /// Whether a request may come in: `Authorization: token T`, `Authorization: Bearer T`, or the
    /// bare header `token: T`.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(known) = &self.token else { return Ok(()) };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let shown = text(header::AUTHORIZATION.as_str())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| {
                scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer")
            })
            .map(|(_, token)| token.trim())
            .or_else(|| text("token"));
        let refused = |message: &str| {
            Err(Problem::new(StatusCode::UNAUTHORIZED, "peer/unauthenticated", message)
                .hint("send the header Authorization: token …"))
        };
        match shown {
            None => refused("this server asks for a token"),
            // Hashes are compared in constant time, so that it tells neither the token nor its length.
            Some(token) if blake3::hash(token.as_bytes()) == *known => Ok(()),
            Some(_) => refused("the token is not the right one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_token_is_shown_in_any_of_three_ways() {
        let gate = Gate::token("secret");
        for (name, value) in [
            ("authorization", "token secret"),
            ("authorization", "Bearer secret"),
            ("token", "secret"),
        ] {
            assert!(gate.admit(&with(name, value)).is_ok(), "{name}: {value}");
        }
        for (name, value) in
            [("authorization", "secret"), ("authorization", "token secre"), ("token", "")]
        {
            let problem = gate.admit(&with(name, value)).unwrap_err();
            assert_eq!(problem.status, StatusCode::UNAUTHORIZED, "{name}: {value}");
        }
        assert!(gate.admit(&HeaderMap::new()).is_err());
        assert!(Gate::open().admit(&HeaderMap::new()).is_ok());
    }
}
