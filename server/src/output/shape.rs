use datahike::Value;

use super::cell;

/// What a query's `:find` says its result looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Rows, with names for their columns.
    Relation(Vec<String>),
    /// Maps with these keys.
    Maps(Vec<String>),
    /// One column.
    Collection(String),
    /// One row.
    Tuple(Vec<String>),
    /// One value.
    Scalar,
}

impl Shape {
    /// From the query as it was written.
    pub(crate) fn of(query: &Value) -> Self {
        if let Value::Str(text) = query
            && let Ok(form) = datahike::edn::read(text)
        {
            return Self::of(&form);
        }
        if let Some(inner) = query.as_map().and_then(|map| map.get(&Value::keyword("query"))) {
            return Self::of(inner);
        }
        for names in ["keys", "strs", "syms"] {
            let keys = clause(query, names);
            if !keys.is_empty() {
                return Self::Maps(keys.iter().map(cell).collect());
            }
        }
        let find = clause(query, "find");
        let is = |value: Option<&Value>, symbol: &str| value == Some(&Value::symbol(symbol));
        match &find[..] {
            [_, last] if is(Some(last), ".") => Self::Scalar,
            [Value::Vector(items)] => match &items[..] {
                [name, last] if is(Some(last), "...") => Self::Collection(column(name)),
                items => Self::Tuple(items.iter().map(column).collect()),
            },
            columns => Self::Relation(columns.iter().map(column).collect()),
        }
    }

    /// Names of the columns.
    pub(crate) fn columns(&self) -> Vec<String> {
        match self {
            Self::Relation(names) | Self::Maps(names) | Self::Tuple(names) => names.clone(),
            Self::Collection(name) => vec![name.clone()],
            Self::Scalar => vec!["value".to_owned()],
        }
    }

    /// The cells of the result.
    pub(crate) fn rows(&self, value: &Value) -> Vec<Vec<String>> {
        let items: Vec<&Value> = match value {
            Value::Set(items) => items.iter().collect(),
            other => other.as_slice().unwrap_or_default().iter().collect(),
        };
        let row = |value: &Value| -> Vec<String> {
            value.as_slice().unwrap_or_default().iter().map(cell).collect()
        };
        match self {
            Self::Relation(_) => items.into_iter().map(row).collect(),
            Self::Maps(keys) => {
                let maps = if value.as_map().is_some() { vec![value] } else { items };
                maps.into_iter().map(|map| of_map(map, keys)).collect()
            }
            Self::Collection(_) => items.into_iter().map(|item| vec![cell(item)]).collect(),
            Self::Tuple(_) if value.is_nil() => Vec::new(),
            Self::Tuple(_) => vec![row(value)],
            Self::Scalar => vec![vec![cell(value)]],
        }
    }
}

fn of_map(map: &Value, keys: &[String]) -> Vec<String> {
    let entries = map.as_map();
    let of = |name: &String| {
        let found = [Value::keyword(name), Value::str(name.as_str()), Value::symbol(name)]
            .iter()
            .find_map(|key| entries?.get(key));
        found.map(cell).unwrap_or_default()
    };
    keys.iter().map(of).collect()
}

fn column(element: &Value) -> String {
    let text = element.to_string();
    text.strip_prefix('?').map_or(text.clone(), str::to_owned)
}

/// The forms after a keyword of the query, up to the next keyword.
fn clause(query: &Value, name: &str) -> Vec<Value> {
    let keyword = Value::keyword(name);
    if let Some(map) = query.as_map() {
        let found = map.get(&keyword).and_then(Value::as_slice);
        return found.unwrap_or_default().to_vec();
    }
    let items = query.as_slice().unwrap_or_default();
    let after = items.iter().skip_while(|item| **item != keyword).skip(1);
    after.take_while(|item| !matches!(item, Value::Keyword(_))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(query: &str) -> Shape {
        Shape::of(&datahike::edn::read(query).unwrap())
    }

    #[test]
    fn shapes_are_as_find_says() {
        assert_eq!(shape("[:find (count ?e) . :where [?e :a]]"), Shape::Scalar);
        assert_eq!(shape("[:find [?n ...] :where [_ :a ?n]]"), Shape::Collection("n".to_owned()));
        let pair = vec!["e".to_owned(), "(max ?n)".to_owned()];
        assert_eq!(shape("[:find [?e (max ?n)] :where [?e :a ?n]]"), Shape::Tuple(pair.clone()));
        assert_eq!(shape("{:find [?e (max ?n)] :where [[?e :a ?n]]}"), Shape::Relation(pair));
        let keys = vec!["x".to_owned()];
        assert_eq!(shape("[:find ?e :keys x :where [?e :a]]"), Shape::Maps(keys));
    }
}
