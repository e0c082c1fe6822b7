//! Comparing values as the corpora do: collections by content, doubles with a tolerance.

use datahike_value::Value;

/// Whether two values are equal: sequences in order whatever their type, sets and maps in any
/// order, numbers by type, doubles within a relative 1e-9.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Double(a), Value::Double(b)) => {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        (Value::Vector(a) | Value::List(a), Value::Vector(b) | Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        (Value::Set(a), Value::Set(b)) => same_bag(a.iter(), b.iter()),
        (Value::Map(a), Value::Map(b)) => {
            let pairs = |map: &std::collections::BTreeMap<Value, Value>| {
                map.iter()
                    .map(|(key, value)| Value::vector([key.clone(), value.clone()]))
                    .collect::<Vec<_>>()
            };
            same_bag(&pairs(a), &pairs(b))
        }
        (Value::Tagged(a), Value::Tagged(b)) => a.tag == b.tag && same(&a.value, &b.value),
        _ => left == right,
    }
}

/// Whether both hold the same elements, each as often, in any order.
pub fn same_bag<'a>(
    left: impl IntoIterator<Item = &'a Value>,
    right: impl IntoIterator<Item = &'a Value>,
) -> bool {
    let mut left: Vec<&Value> = left.into_iter().collect();
    let mut right: Vec<&Value> = right.into_iter().collect();
    if left.len() != right.len() {
        return false;
    }
    left.sort();
    right.sort();
    if left == right {
        return true;
    }
    // Values that only differ within the tolerance need not sort alike.
    for value in left {
        match right.iter().position(|other| same(value, other)) {
            Some(place) => right.swap_remove(place),
            None => return false,
        };
    }
    true
}

/// The elements of a list, vector or set.
pub fn elements(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Vector(items) | Value::List(items) => Some(items.to_vec()),
        Value::Set(items) => Some(items.iter().cloned().collect()),
        _ => None,
    }
}

/// `value` as text that fits into a line of a report.
pub fn brief(value: &Value) -> String {
    const MOST: usize = 600;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use datahike_value::edn::read;

    use super::*;

    fn alike(left: &str, right: &str) -> bool {
        same(&read(left).unwrap(), &read(right).unwrap())
    }

    #[test]
    fn sequences_are_ordered_and_sets_are_not() {
        assert!(alike("[1 (2 3)]", "(1 [2 3])"));
        assert!(!alike("[1 2]", "[2 1]"));
        assert!(alike("#{[1 2.0] [3 4.0]}", "#{[3 4.0] [1 2.0000000000001]}"));
        assert!(alike("{:a 1.0 :b [2]}", "{:b (2) :a 1.00000000000001}"));
        assert!(!alike("{:a 1}", "{:a 1 :b 2}"));
        assert!(!alike("[1]", "#{1}"));
    }

    #[test]
    fn numbers_keep_their_type() {
        assert!(!alike("1", "1.0"));
        assert!(!alike("1", "1N"));
        assert!(!alike("1.0", "1.001"));
        assert!(alike("##NaN", "##NaN"));
    }

    #[test]
    fn multiplicity_counts_in_bags() {
        let bag = |text| elements(&read(text).unwrap()).unwrap();
        assert!(same_bag(&bag("[1 2 1]"), &bag("[1 1 2]")));
        assert!(!same_bag(&bag("[1 2 1]"), &bag("[1 2 2]")));
        assert!(!same_bag(&bag("[1]"), &bag("[1 1]")));
    }
}
