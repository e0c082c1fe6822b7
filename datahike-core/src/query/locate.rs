//! Where in its text a form stands.

use datahike_value::{Value, edn};

/// Texts longer than this are not searched.
const TEXT_MAX: usize = 64 * 1024;

/// Line and column, from 1, of the first place where `form` is written in `text`; `None` if it is
/// nowhere, or is the whole text.
pub(crate) fn position(text: &str, form: &Value) -> Option<(u32, u32)> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let mut begins: Vec<usize> = Begins { text, at: 0 }.collect();
    let whole = begins.first().copied();
    begins.retain(|begin| Some(*begin) != whole);
    let begin = begins.into_iter().find(|begin| {
        let rest = &text[*begin..];
        may_begin(rest, form)
            && matches!(edn::Reader::new(rest).next(), Some(Ok(read)) if read.value == *form)
    })?;
    let before = &text[..begin];
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    Some((line as u32, column as u32))
}

/// Spares reading what cannot be the form.
fn may_begin(text: &str, form: &Value) -> bool {
    let first = text.as_bytes().first();
    match form {
        Value::Vector(_) => first == Some(&b'['),
        Value::List(_) => first == Some(&b'('),
        Value::Map(_) => first == Some(&b'{'),
        Value::Symbol(symbol) => text.starts_with(symbol.text()),
        Value::Keyword(_) => first == Some(&b':'),
        Value::Str(_) => first == Some(&b'"'),
        _ => !matches!(first, Some(b'[' | b'(' | b'{' | b':' | b'"')),
    }
}

/// The places where forms begin, at any depth.
struct Begins<'a> {
    text: &'a str,
    at: usize,
}

impl Begins<'_> {
    fn skip_while(&mut self, skipped: impl Fn(char) -> bool) {
        let rest = &self.text[self.at..];
        self.at += rest.find(|c| !skipped(c)).unwrap_or(rest.len());
    }
}

impl Iterator for Begins<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let blank = |c: char| c.is_whitespace() || matches!(c, ',' | ')' | ']' | '}');
        loop {
            self.skip_while(blank);
            if !self.text[self.at..].starts_with(';') {
                break;
            }
            self.skip_while(|c| c != '\n');
        }
        let begin = self.at;
        let mut chars = self.text[begin..].chars();
        match chars.next()? {
            '(' | '[' | '{' => self.at += 1,
            '"' => {
                self.at += 1;
                let mut escaped = false;
                for c in chars {
                    self.at += c.len_utf8();
                    match c {
                        _ if escaped => escaped = false,
                        '\\' => escaped = true,
                        '"' => break,
                        _ => {}
                    }
                }
            }
            first => {
                self.at += first.len_utf8();
                // A character such as `\(` is one form, whatever it is.
                if first == '\\'
                    && let Some(c) = chars.next()
                {
                    self.at += c.len_utf8();
                }
                self.skip_while(|c| !blank(c) && !matches!(c, '(' | '[' | '{' | '"' | ';'));
            }
        }
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(text: &str, form: &str) -> Option<(u32, u32)> {
        position(text, &edn::read(form).unwrap_or_default())
    }

    #[test]
    fn a_form_is_found_at_any_depth_and_not_in_strings_or_comments() {
        let text =
            "[:find ?x ; (odd? ?y)\n :where [?x :a \"(odd? ?y)\"]\n  [ (odd?  ?y) ] [\\( ?é 1]]";
        assert_eq!(found(text, "(odd? ?y)"), Some((3, 5)));
        assert_eq!(found(text, "[(odd? ?y)]"), Some((3, 3)));
        assert_eq!(found(text, "?y"), Some((3, 12)));
        assert_eq!(found(text, "1"), Some((3, 25)));
        assert_eq!(found(text, ":where"), Some((2, 2)));
        assert_eq!(found(text, "?z"), None);
        assert_eq!(found(text, text), None);
    }
}
