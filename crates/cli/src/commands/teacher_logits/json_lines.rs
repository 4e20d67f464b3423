//! What happens, for a program that reads along: a line of JSON each.

use serde_json::{Value, json};

/// One line on stdout: `{"event": ..., ...}`.
pub(super) fn print_event(event: &str, fields: Value) {
    let mut line = json!({ "event": event });
    if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
        line.extend(fields);
    }
    println!("{line}");
}
