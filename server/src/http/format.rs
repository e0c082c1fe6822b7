//! The formats of requests and answers.

use datahike::Value;
use datahike::value::codec::{cbor, json, transit};
use datahike::value::edn;
use http::StatusCode;

use super::failure::{Problem, wrong};

/// One format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Plain,
    Edn,
    Transit,
    Cbor,
    MessagePack,
}

/// All formats, by the media type that asks for them.
const TYPES: &[(&str, Format)] = &[
    ("application/json", Format::Json),
    ("application/edn", Format::Edn),
    ("application/transit+json", Format::Transit),
    ("application/cbor", Format::Cbor),
    ("application/msgpack", Format::MessagePack),
    ("application/vnd.datahike.plain+json", Format::Plain),
    ("application/vnd.msgpack", Format::MessagePack),
    ("application/x-msgpack", Format::MessagePack),
    ("text/edn", Format::Edn),
];

/// By which short name a format is asked for in an address.
const NAMES: &[(&str, Format)] = &[
    ("json", Format::Json),
    ("edn", Format::Edn),
    ("transit", Format::Transit),
    ("cbor", Format::Cbor),
    ("msgpack", Format::MessagePack),
    ("plain", Format::Plain),
];

impl Format {
    /// The media types that are understood, for those who are told of them.
    pub(super) fn types() -> impl Iterator<Item = &'static str> {
        TYPES.iter().take(NAMES.len()).map(|(name, _)| *name)
    }

    /// By its short name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Of a `Content-Type`; JSON if there is none.
    pub(super) fn of_body(content_type: Option<&str>) -> Result<Self, Problem> {
        let Some(content_type) = content_type else { return Ok(Self::Json) };
        let mut parts = content_type.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let unsupported =
            |message| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "http/format", message);
        for parameter in parts {
            if let Some((key, charset)) = parameter.split_once('=')
                && key.trim().eq_ignore_ascii_case("charset")
                && !charset.trim_matches([' ', '"']).eq_ignore_ascii_case("utf-8")
            {
                return Err(unsupported(format!("{charset} is not understood: send UTF-8")));
            }
        }
        TYPES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
            let known: Vec<_> = Self::types().collect();
            unsupported(format!("{name} is not understood: send {}", known.join(", ")))
        })
    }

    /// Of an `Accept`; that of the body if it leaves the choice.
    pub(super) fn of_answer(accept: Option<&str>, body: Self) -> Result<Self, Problem> {
        let Some(accept) = accept else { return Ok(body) };
        let mut best: Option<(f32, Self)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let format = match name.as_str() {
                "*/*" | "application/*" => Some(body),
                name => TYPES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format),
            };
            if let Some(format) = format
                && weight > 0.0
                && best.is_none_or(|(known, _)| weight > known)
            {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            let known: Vec<_> = Self::types().collect();
            let message = format!("cannot answer as {accept}: ask for {}", known.join(", "));
            Problem::new(StatusCode::NOT_ACCEPTABLE, "http/format", message)
        })
    }

    /// The media type of answers.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Plain => "application/vnd.datahike.plain+json; charset=utf-8",
            Self::Edn => "application/edn; charset=utf-8",
            Self::Transit => "application/transit+json; charset=utf-8",
            Self::Cbor => "application/cbor",
            Self::MessagePack => "application/msgpack",
        }
    }

    /// Whether keywords may come as strings, to be told apart by the schema.
    pub(super) fn is_loose(self) -> bool {
        matches!(self, Self::Json | Self::Plain)
    }

    pub(super) fn read(self, bytes: &[u8]) -> Result<Value, Problem> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Problem::new(StatusCode::BAD_REQUEST, "http/unreadable", error.to_string())
        };
        match self {
            Self::Json | Self::Plain => json::read(bytes).map_err(|error| unreadable(&error)),
            Self::Transit => transit::read(bytes).map_err(|error| unreadable(&error)),
            Self::Cbor => cbor::read(bytes).map_err(|error| unreadable(&error)),
            Self::MessagePack => rmp_serde::from_slice(bytes).map_err(|error| unreadable(&error)),
            Self::Edn => {
                let text =
                    std::str::from_utf8(bytes).map_err(|_| wrong("the body is not UTF-8"))?;
                edn::read(text).map_err(|error| unreadable(&error))
            }
        }
    }

    pub(super) fn write(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => json::write(value).into_bytes(),
            Self::Plain => serde_json::to_vec(&json::Plain(value)).unwrap_or_default(),
            Self::Edn => value.to_string().into_bytes(),
            Self::Transit => transit::write(value).into_bytes(),
            Self::Cbor => cbor::write(value),
            Self::MessagePack => rmp_serde::to_vec(value).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_format_that_is_known_answers() {
        let answer = |accept| Format::of_answer(accept, Format::Json).ok();
        assert_eq!(answer(None), Some(Format::Json));
        assert_eq!(answer(Some("*/*")), Some(Format::Json));
        assert_eq!(answer(Some("text/html, application/edn;q=0.5, */*;q=0.1")), Some(Format::Edn));
        assert_eq!(answer(Some("application/edn;q=0, application/cbor")), Some(Format::Cbor));
        assert_eq!(answer(Some("text/html")), None);
    }

    #[test]
    fn a_body_is_utf_8_of_a_known_type() {
        assert_eq!(Format::of_body(Some("application/EDN; charset=UTF-8")).ok(), Some(Format::Edn));
        for refused in ["text/html", "application/json; charset=latin1"] {
            let problem = Format::of_body(Some(refused)).unwrap_err();
            assert_eq!(problem.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }
}
