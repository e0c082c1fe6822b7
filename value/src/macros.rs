//! Values written in Rust source.

/// A keyword made once per place in the source and cloned from then on: `kw!("db/ident")`.
#[macro_export]
macro_rules! kw {
    ($text:literal) => {{
        static KEYWORD: ::std::sync::LazyLock<$crate::Keyword> =
            ::std::sync::LazyLock::new(|| $crate::Keyword::parse($text));
        $crate::Keyword::clone(&KEYWORD)
    }};
}

/// A vector: `vector![1, "two", kw!("three")]`.
#[macro_export]
macro_rules! vector {
    ($($item:expr),* $(,)?) => { $crate::Value::vector([$($crate::Value::from($item)),*]) };
}

/// A list: `list![Symbol::parse("inc"), 1]`.
#[macro_export]
macro_rules! list {
    ($($item:expr),* $(,)?) => { $crate::Value::list([$($crate::Value::from($item)),*]) };
}

/// A set: `set![1, 2]`.
#[macro_export]
macro_rules! set {
    ($($item:expr),* $(,)?) => { $crate::Value::set([$($crate::Value::from($item)),*]) };
}

/// A map: `map! { kw!("db/id") => 1, kw!("name") => "Ada" }`. The last of equal keys wins.
#[macro_export]
macro_rules! map {
    ($($key:expr => $item:expr),* $(,)?) => {
        $crate::Value::map([$(($crate::Value::from($key), $crate::Value::from($item))),*])
    };
}
