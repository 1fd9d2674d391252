//! Parameters of the query, read so that every wrong one is named at once.

use std::marker::PhantomData;

use poem::Request;
use poem::web::RequestBody;
use poem_openapi::registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::problem::{FieldError, Kind, Problem};

/// What a parameter is called, and like.
pub(crate) trait Parameter: 'static {
    const NAME: &'static str;

    fn schema() -> MetaSchema;
}

/// A parameter as it came, not read yet.
pub(crate) struct Asked<P> {
    /// Each time that it came.
    values: Vec<String>,
    parameter: PhantomData<fn() -> P>,
}

impl<P: Parameter> Asked<P> {
    /// The value, if one came; what is wrong with it goes to `wrong`.
    pub(crate) fn read<T>(
        &self,
        wrong: &mut Vec<FieldError>,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let outcome = match self.values.as_slice() {
            [] => return None,
            [value] => read(value),
            _ => Err("must come once"),
        };
        outcome
            .map_err(|detail| wrong.push(FieldError::new(P::NAME, detail)))
            .ok()
    }
}

/// A query with these wrong parameters.
pub(crate) fn invalid(wrong: Vec<FieldError>) -> Problem {
    let detail = match wrong.len() {
        1 => "1 parameter of the query is invalid".to_owned(),
        count => format!("{count} parameters of the query are invalid"),
    };
    Problem::with_errors(Kind::InvalidParameter, detail, wrong)
}

impl<'a, P: Parameter> ApiExtractor<'a> for Asked<P> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = Option<String>;
    type ParamRawType = String;

    fn register(_registry: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(P::schema())))
    }

    fn param_raw_type(&self) -> Option<&String> {
        self.values.first()
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        // A query is pairs of text, whatever it holds.
        let pairs: Vec<(String, String)> = request.params().unwrap_or_default();
        let values = pairs.into_iter().filter(|(name, _)| name == P::NAME);
        Ok(Self {
            values: values.map(|(_, value)| value).collect(),
            parameter: PhantomData,
        })
    }
}
