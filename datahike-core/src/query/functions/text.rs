//! Functions on strings and names.

use std::cell::RefCell;

use datahike_value::{Keyword, Symbol, Value};
use hashbrown::HashMap;

use super::{arity, one, table, two, wrong};

table! {
    "str" => |args| Ok(Value::str(args.iter().map(text_of).collect::<String>())),
    "pr-str" => |args| Ok(Value::str(printed(args, true))),
    "print-str" => |args| Ok(Value::str(printed(args, false))),
    "prn-str" => |args| Ok(Value::str(printed(args, true) + "\n")),
    "println-str" => |args| Ok(Value::str(printed(args, false) + "\n")),
    "subs" => substring,
    "upper-case" => |args| Ok(Value::str(string(one(args)?)?.to_uppercase())),
    "lower-case" => |args| Ok(Value::str(string(one(args)?)?.to_lowercase())),
    "capitalize" => |args| {
        let text = string(one(args)?)?;
        let mut chars = text.chars();
        let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
        Ok(Value::str(first + &chars.as_str().to_lowercase()))
    },
    "trim" => |args| Ok(Value::str(string(one(args)?)?.trim())),
    "triml" => |args| Ok(Value::str(string(one(args)?)?.trim_start())),
    "trimr" => |args| Ok(Value::str(string(one(args)?)?.trim_end())),
    "blank?" => |args| {
        let arg = one(args)?;
        Ok((arg.is_nil() || string(arg)?.trim().is_empty()).into())
    },
    "starts-with?" => |args| both(args, |text, part| text.starts_with(part)),
    "ends-with?" => |args| both(args, |text, part| text.ends_with(part)),
    "includes?" => |args| both(args, |text, part| text.contains(part)),
    "index-of" => |args| {
        let (text, part) = two(args)?;
        let (text, part) = (string(text)?, string(part)?);
        Ok(text.find(part).map(|at| text[..at].chars().count() as i64).into())
    },
    "last-index-of" => |args| {
        let (text, part) = two(args)?;
        let (text, part) = (string(text)?, string(part)?);
        Ok(text.rfind(part).map(|at| text[..at].chars().count() as i64).into())
    },
    "parse-long" => |args| {
        Ok(string(one(args)?)?.parse().map(Value::Long).unwrap_or_default())
    },
    "parse-double" => |args| {
        Ok(string(one(args)?)?.trim().parse().map(Value::Double).unwrap_or_default())
    },
    "split-lines" => |args| {
        Ok(Value::vector(string(one(args)?)?.lines().map(Value::str).collect::<Vec<_>>()))
    },
    "join" => |args| {
        arity(args, 1..=2)?;
        let (separator, items) = match args {
            [separator, items] => (text_of(separator), items),
            _ => (String::new(), &args[0]),
        };
        let items = super::collections::items(items)?;
        let parts: Vec<String> = items.iter().map(text_of).collect();
        Ok(Value::str(parts.join(&separator)))
    },
    "replace" => |args| {
        arity(args, 3..=3)?;
        let (text, with) = (string(&args[0])?, string(&args[2])?);
        match &args[1] {
            Value::Regex(_) => {
                with_regex(&args[1], |regex| Value::str(regex.replace_all(text, with)))
            }
            part => Ok(Value::str(text.replace(string(part)?, with))),
        }
    },
    "split" => |args| {
        let (text, at) = two(args)?;
        let text = string(text)?;
        with_regex(at, |regex| {
            let mut parts: Vec<&str> = regex.split(text).collect();
            while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
                parts.pop();
            }
            Value::vector(parts.into_iter().map(Value::str))
        })
    },
    "reverse" => |args| match one(args)? {
        Value::Str(text) => Ok(Value::str(text.chars().rev().collect::<String>())),
        other => Ok(Value::list(super::collections::items(other)?.into_iter().rev())),
    },
    "re-pattern" => |args| match one(args)? {
        regex @ Value::Regex(_) => Ok(regex.clone()),
        other => datahike_value::Regex::new(string(other)?)
            .map(Value::Regex)
            .map_err(|error| error.to_string()),
    },
    "re-find" => |args| {
        let (regex, text) = two(args)?;
        let text = string(text)?;
        with_regex(regex, |regex| regex.captures(text).map(|found| groups(&found)).unwrap_or_default())
    },
    "re-matches" => |args| {
        let (regex, text) = two(args)?;
        let text = string(text)?;
        with_regex(regex, |regex| {
            // The engine looks for the leftmost match; only one that spans all counts.
            match regex.captures(text) {
                Some(found) if found.get(0).is_some_and(|all| all.len() == text.len()) => {
                    groups(&found)
                }
                _ => whole(regex, text),
            }
        })
    },
    "re-seq" => |args| {
        let (regex, text) = two(args)?;
        let text = string(text)?;
        with_regex(regex, |regex| {
            let found: Vec<Value> = regex.captures_iter(text).map(|found| groups(&found)).collect();
            if found.is_empty() { Value::Nil } else { Value::list(found) }
        })
    },
    "name" => |args| match one(args)? {
        Value::Keyword(keyword) => Ok(Value::str(keyword.name())),
        Value::Symbol(symbol) => Ok(Value::str(symbol.name())),
        text @ Value::Str(_) => Ok(text.clone()),
        other => Err(wrong("a keyword, symbol or string", other)),
    },
    "namespace" => |args| match one(args)? {
        Value::Keyword(keyword) => Ok(keyword.namespace().map(Value::str).unwrap_or_default()),
        Value::Symbol(symbol) => Ok(symbol.namespace().map(Value::str).unwrap_or_default()),
        other => Err(wrong("a keyword or symbol", other)),
    },
    "keyword" => |args| match args {
        [keyword @ Value::Keyword(_)] => Ok(keyword.clone()),
        [Value::Str(text)] => Ok(Value::Keyword(Keyword::parse(text))),
        [Value::Symbol(symbol)] => Ok(Value::Keyword(Keyword::parse(symbol.text()))),
        [Value::Nil, Value::Str(name)] => Ok(Value::Keyword(Keyword::new(None, name))),
        [Value::Str(space), Value::Str(name)] => {
            Ok(Value::Keyword(Keyword::new(Some(space), name)))
        }
        _ => Err("takes a name, or a namespace and a name".into()),
    },
    "symbol" => |args| match args {
        [symbol @ Value::Symbol(_)] => Ok(symbol.clone()),
        [Value::Str(text)] => Ok(Value::Symbol(Symbol::parse(text))),
        [Value::Str(space), Value::Str(name)] => {
            Ok(Value::Symbol(Symbol::new(Some(space), name)))
        }
        _ => Err("takes a name, or a namespace and a name".into()),
    },
}

pub(super) fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| wrong("a string", value))
}

fn both(args: &[Value], holds: fn(&str, &str) -> bool) -> Result<Value, String> {
    let (text, part) = two(args)?;
    Ok(holds(string(text)?, string(part)?).into())
}

/// As `str` shows it: nil is nothing, strings and characters stand for themselves.
fn text_of(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Str(text) => text.to_string(),
        Value::Char(c) => c.to_string(),
        Value::BigInt(n) => n.to_string(),
        Value::BigDec(n) => n.to_string(),
        Value::Uuid(uuid) => uuid.to_string(),
        Value::Regex(regex) => regex.as_str().to_string(),
        other => other.to_string(),
    }
}

fn printed(args: &[Value], readably: bool) -> String {
    let parts: Vec<String> = args
        .iter()
        .map(|value| match value {
            Value::Str(_) | Value::Char(_) if !readably => text_of(value),
            value => value.to_string(),
        })
        .collect();
    parts.join(" ")
}

fn substring(args: &[Value]) -> Result<Value, String> {
    arity(args, 2..=3)?;
    let text = string(&args[0])?;
    let place = |value: &Value| {
        value
            .as_long()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong("a position in the string", value))
    };
    let length = text.chars().count();
    let start = place(&args[1])?;
    let end = args.get(2).map_or(Ok(length), place)?;
    if start > end || end > length {
        return Err(format!("positions {start} to {end} are not within {length} characters"));
    }
    Ok(Value::str(text.chars().skip(start).take(end - start).collect::<String>()))
}

/// Compiled expressions are kept per thread: a query calls the same one for every row.
const REGEXES_MAX: usize = 64;

fn with_regex(
    pattern: &Value,
    use_it: impl FnOnce(&regex::Regex) -> Value,
) -> Result<Value, String> {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    let source = match pattern {
        Value::Regex(regex) => regex.as_str(),
        Value::Str(text) => text,
        other => return Err(wrong("a regular expression", other)),
    };
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(source) {
            if compiled.len() >= REGEXES_MAX {
                compiled.clear();
            }
            let regex = regex::RegexBuilder::new(source)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| format!("not a regular expression: {error}"))?;
            compiled.insert(source.to_string(), regex);
        }
        match compiled.get(source) {
            Some(regex) => Ok(use_it(regex)),
            None => Ok(Value::Nil),
        }
    })
}

fn groups(found: &regex::Captures<'_>) -> Value {
    let group = |at: Option<regex::Match<'_>>| at.map(|at| Value::str(at.as_str()));
    if found.len() == 1 {
        return group(found.get(0)).unwrap_or_default();
    }
    Value::vector(found.iter().map(|at| group(at).unwrap_or_default()))
}

fn whole(regex: &regex::Regex, text: &str) -> Value {
    match regex::Regex::new(&format!("^(?:{})$", regex.as_str())) {
        Ok(anchored) => anchored.captures(text).map(|found| groups(&found)).unwrap_or_default(),
        Err(_) => Value::Nil,
    }
}
