//! Errors as JavaScript sees them.

use datahike::Error;
use wasm_bindgen::JsValue;

use crate::plain;

/// An `Error` with `code`, and `data` where the cause has some.
pub(crate) fn failure(error: &Error) -> JsValue {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors say already what caused them.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    let data = match error {
        Error::Remote { data, .. } => plain::to_js(data),
        _ => JsValue::UNDEFINED,
    };
    coded(error.code(), &message, &data)
}

/// What the caller gave cannot be used.
pub(crate) fn unusable(message: &str) -> JsValue {
    coded("argument/invalid", message, &JsValue::UNDEFINED)
}

fn coded(code: &str, message: &str, data: &JsValue) -> JsValue {
    let error = js_sys::Error::new(message);
    plain::set(&error, "code", &code.into());
    plain::set(&error, "data", data);
    error.into()
}
