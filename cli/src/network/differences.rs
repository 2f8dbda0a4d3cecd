//! Where two documents differ, field by field, with both values.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub fn between(founded: &Value, asked: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", founded, asked, &mut found);
    found
}

fn differ(path: &str, founded: &Value, asked: &Value, found: &mut Vec<String>) {
    let below = |key: &str| format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
    match (founded, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differ(&below(key), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                let of = |list: &[Value]| list.get(i).cloned().unwrap_or_default();
                differ(&below(&i.to_string()), &of(a), &of(b), found);
            }
        }
        (a, b) if a != b => found.push(format!("{path}: founded with {a}, asked for {b}")),
        _ => {}
    }
}
