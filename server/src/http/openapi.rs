//! What is served, told to programs: made from the table of operations.

use serde_json::{Map, Value as Json, json};

use super::api::{Argument, Need, ROUTES, Route};
use super::format::Format;

/// As OpenAPI 3.1.
pub(super) fn openapi() -> Json {
    let mut paths = Map::new();
    for route in ROUTES {
        let mut methods = Map::new();
        if route.pure {
            methods.insert("get".into(), operation(route, true));
        }
        methods.insert("post".into(), operation(route, false));
        paths.insert(format!("/{}", route.name), Json::Object(methods));
    }
    json!({
        "openapi": "3.1.0",
        "info": info(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "token" },
                "bearer": { "type": "http", "scheme": "bearer" }
            },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["msg", "ex-data"],
                    "properties": {
                        "msg": { "type": "string" },
                        "ex-data": { "type": "object" }
                    }
                }
            }
        },
        "security": [{ "token": [] }, { "bearer": [] }]
    })
}

/// As Swagger 2.0, for older tools.
pub(super) fn swagger() -> Json {
    let mut paths = Map::new();
    for route in ROUTES {
        let method = if route.pure { "get" } else { "post" };
        let parameter = json!({
            "in": "body",
            "name": "arguments",
            "schema": { "type": "array", "items": {}, "description": takes(route) }
        });
        paths.insert(
            format!("/{}", route.name),
            json!({
                method: {
                    "operationId": format!("{method}-{}", route.name),
                    "summary": route.doc,
                    "parameters": [parameter],
                    "responses": { "200": { "description": "the result" } }
                }
            }),
        );
    }
    let types: Vec<_> = Format::types().collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "consumes": types.clone(),
        "produces": types,
        "securityDefinitions": {
            "token": { "type": "apiKey", "in": "header", "name": "token" }
        },
        "paths": paths
    })
}

fn info() -> Json {
    json!({
        "title": "datahike",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Arguments are a list in the body. Tagged JSON writes what JSON has no word \
                        for as [\"!tag\", …]; a string as the first argument of a query or \
                        configuration is EDN."
    })
}

fn operation(route: &Route, in_address: bool) -> Json {
    let method = if in_address { "get" } else { "post" };
    let content: Map<String, Json> = Format::types()
        .map(|name| {
            let schema = match name.ends_with("json") {
                true => arguments(route),
                false => json!({}),
            };
            (name.to_owned(), json!({ "schema": schema }))
        })
        .collect();
    let answer: Map<String, Json> =
        Format::types().map(|name| (name.to_owned(), json!({ "schema": {} }))).collect();
    let problem: Map<String, Json> = Format::types()
        .map(|name| {
            let schema = json!({ "$ref": "#/components/schemas/Problem" });
            let schema = if name.ends_with("json") { schema } else { json!({}) };
            (name.to_owned(), json!({ "schema": schema }))
        })
        .collect();
    let mut operation = json!({
        "operationId": format!("{method}-{}", route.name),
        "summary": route.doc,
        "description": takes(route),
        "responses": {
            "200": { "description": "the result", "content": answer },
            "401": { "description": "no token, or the wrong one", "content": problem.clone() },
            "404": { "description": "no such database or entity", "content": problem.clone() },
            "default": { "description": "why not", "content": problem }
        }
    });
    if in_address {
        operation["parameters"] = json!([
            {
                "name": "args", "in": "query", "required": true,
                "description": "the arguments, base64url without padding",
                "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]*$" }
            },
            {
                "name": "f", "in": "query",
                "description": "their format",
                "schema": { "enum": ["json", "edn", "transit", "cbor", "msgpack", "plain"] }
            }
        ]);
    } else {
        let required = route.arguments.iter().any(|argument| argument.need == Need::Once);
        operation["requestBody"] = json!({ "required": required, "content": content });
    }
    operation
}

/// The list of arguments in JSON.
fn arguments(route: &Route) -> Json {
    let least = route.arguments.iter().filter(|argument| argument.need == Need::Once).count();
    let any = route.arguments.iter().any(|argument| argument.need == Need::Any);
    let described = |argument: &Argument| json!({ "description": argument.doc });
    let mut schema = json!({
        "type": "array",
        "prefixItems": route.arguments.iter().map(described).collect::<Vec<_>>(),
        "minItems": least,
    });
    if !any {
        schema["maxItems"] = json!(route.arguments.len());
    }
    schema
}

fn takes(route: &Route) -> String {
    let each = route.arguments.iter().map(|argument| {
        let need = match argument.need {
            Need::Once => "",
            Need::Maybe => "?",
            Need::Any => "…",
        };
        format!("{}{need}: {}", argument.name, argument.doc)
    });
    each.collect::<Vec<_>>().join("; ")
}
