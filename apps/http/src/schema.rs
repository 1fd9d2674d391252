//! Describing JSON bodies for the OpenAPI document.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use serde_json::Value;

/// A body with a name of its own in the document.
pub(crate) trait Shape: 'static {
    /// The name under `components.schemas`.
    const NAME: &'static str;

    /// The description of the body.
    fn schema() -> MetaSchema;

    /// Registers the shapes that [`schema`](Self::schema) refers to.
    fn register_parts(_registry: &mut Registry) {}

    /// A reference to the description.
    fn reference() -> MetaSchemaRef {
        MetaSchemaRef::Reference(Self::NAME.to_owned())
    }

    /// Registers the description.
    fn register(registry: &mut Registry)
    where
        Self: Sized,
    {
        registry.create_schema::<Self, _>(Self::NAME.to_owned(), |registry| {
            Self::register_parts(registry);
            Self::schema()
        });
    }
}

/// A member of an object.
pub(crate) struct Member {
    name: &'static str,
    schema: MetaSchemaRef,
    required: bool,
}

impl Member {
    /// A member that is always there.
    pub(crate) fn required(name: &'static str, schema: impl Into<Described>) -> Self {
        Self {
            name,
            schema: schema.into().0,
            required: true,
        }
    }

    /// A member that may be missing.
    pub(crate) fn optional(name: &'static str, schema: impl Into<Described>) -> Self {
        Self {
            required: false,
            ..Self::required(name, schema)
        }
    }
}

/// A schema, inline or by reference.
pub(crate) struct Described(MetaSchemaRef);

impl From<MetaSchema> for Described {
    fn from(schema: MetaSchema) -> Self {
        Self(MetaSchemaRef::Inline(Box::new(schema)))
    }
}

impl From<MetaSchemaRef> for Described {
    fn from(reference: MetaSchemaRef) -> Self {
        Self(reference)
    }
}

/// An object with these members.
pub(crate) fn object(
    description: &'static str,
    members: Vec<Member>,
    example: Value,
) -> MetaSchema {
    MetaSchema {
        description: Some(description),
        required: members
            .iter()
            .filter(|member| member.required)
            .map(|member| member.name)
            .collect(),
        properties: members
            .into_iter()
            .map(|member| (member.name, member.schema))
            .collect(),
        example: Some(example),
        ..MetaSchema::new("object")
    }
}

/// A list of `items`.
pub(crate) fn list(description: &'static str, items: MetaSchemaRef) -> MetaSchema {
    MetaSchema {
        description: Some(description),
        items: Some(Box::new(items)),
        ..MetaSchema::new("array")
    }
}

/// A text.
pub(crate) fn text(description: &'static str, example: impl Into<Value>) -> MetaSchema {
    described(MetaSchema::new("string"), description, example)
}

/// The same text, as far as it matches a regular expression of ECMA-262.
pub(crate) fn matching(schema: MetaSchema, pattern: &str) -> MetaSchema {
    MetaSchema {
        pattern: Some(pattern.to_owned()),
        ..schema
    }
}

/// A task's id.
pub(crate) fn id(description: &'static str, example: &'static str) -> MetaSchema {
    described(
        MetaSchema::new_with_format("string", "uuid"),
        description,
        example,
    )
}

/// A point in time.
pub(crate) fn time(description: &'static str, example: &'static str) -> MetaSchema {
    described(
        MetaSchema::new_with_format("string", "date-time"),
        description,
        example,
    )
}

/// A reference to a resource.
pub(crate) fn uri(description: &'static str, example: &'static str) -> MetaSchema {
    described(
        MetaSchema::new_with_format("string", "uri-reference"),
        description,
        example,
    )
}

/// One of a few names.
pub(crate) fn choice(
    description: &'static str,
    names: impl IntoIterator<Item = &'static str>,
    example: &'static str,
) -> MetaSchema {
    MetaSchema {
        enum_items: names.into_iter().map(Value::from).collect(),
        ..text(description, example)
    }
}

/// A whole number.
pub(crate) fn integer(
    description: &'static str,
    minimum: Option<f64>,
    maximum: Option<f64>,
    example: i64,
) -> MetaSchema {
    MetaSchema {
        minimum,
        maximum,
        ..described(
            MetaSchema::new_with_format("integer", "int64"),
            description,
            example,
        )
    }
}

/// A number.
pub(crate) fn number(description: &'static str, example: f64) -> MetaSchema {
    described(
        MetaSchema::new_with_format("number", "double"),
        description,
        example,
    )
}

/// The same, or `null`.
pub(crate) fn nullable(schema: MetaSchema) -> MetaSchema {
    MetaSchema {
        nullable: true,
        ..schema
    }
}

/// The same with a value that stands for a missing one.
pub(crate) fn with_default(schema: MetaSchema, default: impl Into<Value>) -> MetaSchema {
    MetaSchema {
        default: Some(default.into()),
        ..schema
    }
}

fn described(
    schema: MetaSchema,
    description: &'static str,
    example: impl Into<Value>,
) -> MetaSchema {
    MetaSchema {
        description: Some(description),
        example: Some(example.into()),
        ..schema
    }
}
