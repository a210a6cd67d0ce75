//! Filling in defaults, top down: a member whose parent is absent is not filled unless the parent has a default itself.

use serde_json::Value;

use super::Schema;

pub(crate) fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(members) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                match members.get(name) {
                    None => {
                        members.insert(name.clone(), default.clone());
                    }
                    Some(Value::Null) if !property.nullable => {
                        members.insert(name.clone(), default.clone());
                    }
                    Some(_) => {}
                }
            }
            for (name, member) in members.iter_mut() {
                if let Some(schema) = schema.member(name) {
                    if member.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *member = default.clone();
                    }
                    apply_defaults(member, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *item = default.clone();
                    }
                    apply_defaults(item, schema);
                }
            }
        }
        _ => {}
    }
}
