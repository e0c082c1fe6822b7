//! Functions that build, take apart and look into collections.

use datahike_value::Value;

use super::{arity, one, table, two, wrong};

table! {
    "vector" | "tuple" => |args| Ok(Value::vector(args.to_vec())),
    "untuple" => |args| one(args).cloned(),
    "list" => |args| Ok(Value::list(args.to_vec())),
    "set" => |args| Ok(Value::set(items(one(args)?)?)),
    "hash-set" => |args| Ok(Value::set(args.to_vec())),
    "vec" => |args| Ok(Value::vector(items(one(args)?)?)),
    "hash-map" | "array-map" => |args| {
        if args.len() % 2 == 1 {
            return Err(format!("takes keys with values, got {} arguments", args.len()));
        }
        Ok(Value::map(args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
    },
    "count" => |args| length(one(args)?).map(|n| Value::Long(n as i64)),
    "empty?" => |args| length(one(args)?).map(|n| (n == 0).into()),
    "not-empty" => |args| {
        let value = one(args)?;
        Ok(if length(value)? == 0 { Value::Nil } else { value.clone() })
    },
    "seq" => |args| {
        let items = items(one(args)?)?;
        Ok(if items.is_empty() { Value::Nil } else { Value::list(items) })
    },
    "range" => range,
    "contains?" => |args| {
        let (inside, key) = two(args)?;
        Ok(match inside {
            Value::Nil => false,
            Value::Set(set) => set.contains(key),
            Value::Map(map) => map.contains_key(key),
            Value::Vector(items) => {
                key.as_long().is_some_and(|n| n >= 0 && (n as u64) < items.len() as u64)
            }
            other => return Err(wrong("a set, map or vector", other)),
        }
        .into())
    },
    "get" => |args| {
        arity(args, 2..=3)?;
        let found = match &args[0] {
            Value::Map(map) => map.get(&args[1]).cloned(),
            Value::Set(set) => set.get(&args[1]).cloned(),
            Value::Vector(items) => nth(items, &args[1]),
            _ => None,
        };
        Ok(found.or_else(|| args.get(2).cloned()).unwrap_or_default())
    },
    "nth" => |args| {
        arity(args, 2..=3)?;
        let items = items(&args[0])?;
        match (nth(&items, &args[1]), args.get(2)) {
            (Some(found), _) => Ok(found),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => Err(format!("{} is not a place in {} items", args[1], items.len())),
        }
    },
    "first" => |args| Ok(items(one(args)?)?.into_iter().next().unwrap_or_default()),
    "second" => |args| Ok(items(one(args)?)?.into_iter().nth(1).unwrap_or_default()),
    "last" => |args| Ok(items(one(args)?)?.pop().unwrap_or_default()),
    "rest" => |args| Ok(Value::list(items(one(args)?)?.into_iter().skip(1))),
    "keys" => |args| match one(args)? {
        Value::Map(map) => Ok(Value::list(map.keys().cloned())),
        other => Err(wrong("a map", other)),
    },
    "vals" => |args| match one(args)? {
        Value::Map(map) => Ok(Value::list(map.values().cloned())),
        other => Err(wrong("a map", other)),
    },
    "assoc" => |args| match args {
        [Value::Map(_) | Value::Nil, pairs @ ..] if pairs.len() % 2 == 0 => {
            let given = pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            let known = args[0].as_map().into_iter().flatten();
            Ok(Value::map(known.map(|(k, v)| (k.clone(), v.clone())).chain(given)))
        }
        _ => Err("takes a map, then keys with values".into()),
    },
    "dissoc" => |args| match args {
        [Value::Map(map), keys @ ..] => {
            let kept = map.iter().filter(|(key, _)| !keys.contains(key));
            Ok(Value::map(kept.map(|(k, v)| (k.clone(), v.clone()))))
        }
        _ => Err("takes a map, then keys".into()),
    },
    "merge" => |args| {
        let maps = args.iter().filter(|arg| !arg.is_nil());
        let maps: Vec<_> =
            maps.map(|arg| arg.as_map().ok_or_else(|| wrong("a map", arg))).collect::<Result<_, _>>()?;
        Ok(Value::map(maps.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone()))))
    },
    "take" => |args| {
        let (count, inside) = two(args)?;
        Ok(Value::list(items(inside)?.into_iter().take(how_many(count)?)))
    },
    "drop" => |args| {
        let (count, inside) = two(args)?;
        Ok(Value::list(items(inside)?.into_iter().skip(how_many(count)?)))
    },
    "union" => |args| {
        let mut all = Vec::new();
        for arg in args {
            all.extend(items(arg)?);
        }
        Ok(Value::set(all))
    },
    "intersection" => |args| {
        let (a, b) = two(args)?;
        let b = items(b)?;
        Ok(Value::set(items(a)?.into_iter().filter(|item| b.contains(item))))
    },
    "difference" => |args| {
        let (a, b) = two(args)?;
        let b = items(b)?;
        Ok(Value::set(items(a)?.into_iter().filter(|item| !b.contains(item))))
    },
    "subset?" => |args| {
        let (a, b) = two(args)?;
        let b = items(b)?;
        Ok(items(a)?.iter().all(|item| b.contains(item)).into())
    },
    "superset?" => |args| {
        let (a, b) = two(args)?;
        let a = items(a)?;
        Ok(items(b)?.iter().all(|item| a.contains(item)).into())
    },
    "conj" => |args| {
        arity(args, 1..)?;
        Ok(match &args[0] {
            Value::Set(set) => Value::set(set.iter().chain(&args[1..]).cloned()),
            Value::Nil => Value::list(args[1..].iter().rev().cloned()),
            Value::List(items) => Value::list(args[1..].iter().rev().chain(&**items).cloned()),
            Value::Vector(items) => Value::vector(items.iter().chain(&args[1..]).cloned()),
            other => return Err(wrong("a collection", other)),
        })
    },
    "concat" => |args| {
        let mut all = Vec::new();
        for arg in args {
            all.extend(items(arg)?);
        }
        Ok(Value::list(all))
    },
    "sort" => |args| {
        let mut items = items(one(args)?)?;
        items.sort_by(super::less);
        Ok(Value::list(items))
    },
    "distinct" => |args| {
        let mut seen = std::collections::BTreeSet::new();
        Ok(Value::list(items(one(args)?)?.into_iter().filter(|item| seen.insert(item.clone()))))
    },
    "coll?" => |args| {
        Ok(matches!(
            one(args)?,
            Value::List(_) | Value::Vector(_) | Value::Map(_) | Value::Set(_)
        )
        .into())
    },
    "map?" => |args| Ok(matches!(one(args)?, Value::Map(_)).into()),
    "set?" => |args| Ok(matches!(one(args)?, Value::Set(_)).into()),
    "vector?" => |args| Ok(matches!(one(args)?, Value::Vector(_)).into()),
    "list?" => |args| Ok(matches!(one(args)?, Value::List(_)).into()),
    "sequential?" => |args| Ok(matches!(one(args)?, Value::List(_) | Value::Vector(_)).into()),
    "meta" => |args| one(args).map(|_| Value::Nil),
}

fn how_many(count: &Value) -> Result<usize, String> {
    let count = count.as_long().ok_or_else(|| wrong("a long", count))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Items that a collection may be made of by one call.
const RANGE_MAX: usize = 10_000_000;

/// The items of any collection, or of a string its characters; nil has none.
pub(in super::super) fn items(value: &Value) -> Result<Vec<Value>, String> {
    Ok(match value {
        Value::Nil => Vec::new(),
        Value::List(items) | Value::Vector(items) => items.to_vec(),
        Value::Set(items) => items.iter().cloned().collect(),
        Value::Map(map) => {
            map.iter().map(|(key, value)| Value::vector([key.clone(), value.clone()])).collect()
        }
        Value::Str(text) => text.chars().map(Value::Char).collect(),
        Value::FloatArray(items) => items.iter().map(|n| Value::Float(*n)).collect(),
        Value::DoubleArray(items) => items.iter().map(|n| Value::Double(*n)).collect(),
        other => return Err(wrong("a collection", other)),
    })
}

fn length(value: &Value) -> Result<usize, String> {
    Ok(match value {
        Value::Nil => 0,
        Value::Str(text) => text.chars().count(),
        Value::List(items) | Value::Vector(items) => items.len(),
        Value::Set(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::FloatArray(items) => items.len(),
        Value::DoubleArray(items) => items.len(),
        other => return Err(wrong("a collection or string", other)),
    })
}

fn nth(items: &[Value], place: &Value) -> Option<Value> {
    items.get(usize::try_from(place.as_long()?).ok()?).cloned()
}

fn range(args: &[Value]) -> Result<Value, String> {
    arity(args, 1..=3)?;
    let long = |value: &Value| value.as_long().ok_or_else(|| wrong("a long", value));
    let (start, end, step) = match args {
        [end] => (0, long(end)?, 1),
        [start, end] => (long(start)?, long(end)?, 1),
        [start, end, step] => (long(start)?, long(end)?, long(step)?),
        _ => (0, 0, 1),
    };
    if step == 0 {
        return Err("a range needs a step other than 0".into());
    }
    let mut items = Vec::new();
    let mut next = start;
    while if step > 0 { next < end } else { next > end } {
        if items.len() >= RANGE_MAX {
            return Err(format!("the range has more than {RANGE_MAX} items"));
        }
        items.push(Value::Long(next));
        match next.checked_add(step) {
            Some(after) => next = after,
            None => break,
        }
    }
    Ok(Value::list(items))
}
