//! One page at a time may hold a store: a Web Lock.

use futures::channel::oneshot;
use futures::future::{Either, select};
use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use crate::StoreError;

/// Held while the sender lives; `None` where the browser has no locks.
pub(super) type Lock = Option<oneshot::Sender<()>>;

/// How long a page that goes may take to let go: a reload opens the next before the last is gone.
const LOCK_WAIT_MS: f64 = 2000.0;

/// Keeps other pages out, where the browser knows how. Whoever dies lets go.
///
/// # Errors
/// [`StoreError::Locked`] if another holds it all the while.
pub(super) async fn take(name: &str) -> Result<Lock, StoreError> {
    let global = js_sys::global();
    let property = |of: &JsValue, key: &str| Reflect::get(of, &key.into());
    let function = |of: &JsValue, key: &str| property(of, key)?.dyn_into::<Function>();
    let manager = property(&global, "navigator").and_then(|of| property(&of, "locks"));
    let Some(manager) = manager.ok().filter(JsValue::is_object) else { return Ok(None) };
    let signals = property(&global, "AbortSignal");
    let signal = signals.and_then(|of| function(&of, "timeout")?.call1(&of, &LOCK_WAIT_MS.into()));
    let (Ok(request), Ok(signal)) = (function(&manager, "request"), signal) else {
        return Ok(None);
    };

    let (held, release) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel::<()>();
    // The lock is held until the promise that this returns is settled.
    let taken = Closure::once_into_js(move |_: JsValue| -> Promise {
        let _ = tell.send(());
        future_to_promise(async move {
            // Dropped by who holds it.
            let _ = release.await;
            Ok(JsValue::UNDEFINED)
        })
    });
    let options = Object::new();
    let _ = Reflect::set(&options, &"signal".into(), &signal);
    let asked = request.call3(&manager, &format!("datahike:{name}").into(), &options, &taken);
    let Ok(asked) = asked.and_then(|asked| asked.dyn_into::<Promise>()) else {
        return Ok(None);
    };
    match select(told, JsFuture::from(asked)).await {
        Either::Left((Ok(()), _)) => Ok(Some(held)),
        Either::Right((Err(error), _)) if !is_timeout(&error) => {
            // A page without an origin may not lock.
            tracing::warn!(?error, "no lock on {name}: another page may write it too");
            Ok(None)
        }
        _ => Err(StoreError::Locked { path: super::place(name), pid: None }),
    }
}

fn is_timeout(error: &JsValue) -> bool {
    let name = Reflect::get(error, &"name".into()).ok().and_then(|name| name.as_string());
    matches!(name.as_deref(), Some("TimeoutError" | "AbortError"))
}
