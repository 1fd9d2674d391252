//! The documentation as a page.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use poem::http::{HeaderMap, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};

use crate::accept::takes_gzip;
use crate::answer::one_response;
use crate::document;
use crate::problem::Problem;

/// The browser may load nothing from elsewhere and talk to nobody but this service.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// `200` to a GET of the page.
pub(crate) struct DocsPage {
    gzip: bool,
}

impl DocsPage {
    /// The page in the form that the client takes. It is made when it is first asked for, which takes a moment, so not
    /// on a thread that serves requests.
    pub(crate) async fn for_client(headers: &HeaderMap) -> Result<Self, Problem> {
        let gzip = takes_gzip(headers);
        match tokio::task::spawn_blocking(|| LazyLock::force(&PAGE)).await {
            Ok(_) => Ok(Self { gzip }),
            Err(error) => {
                tracing::error!(event = "http.docs_failed", %error, "the page of the documentation was not made");
                Err(Problem::internal())
            }
        }
    }
}

struct Page {
    plain: String,
    gzipped: Vec<u8>,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let plain = document::page();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory cannot fail.
    let gzipped = encoder
        .write_all(plain.as_bytes())
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    Page { plain, gzipped }
});

impl IntoResponse for DocsPage {
    fn into_response(self) -> Response {
        let response = Response::builder()
            .content_type(CONTENT_TYPE)
            .header(header::VARY, "Accept-Encoding")
            .header(header::CONTENT_SECURITY_POLICY, POLICY);
        if self.gzip {
            response
                .header(header::CONTENT_ENCODING, "gzip")
                .body(PAGE.gzipped.as_slice())
        } else {
            response.body(PAGE.plain.as_str())
        }
    }
}

impl ApiResponse for DocsPage {
    fn meta() -> MetaResponses {
        one_response(MetaResponse {
            description: "The page.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "text/html",
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
            }],
            headers: Vec::new(),
        })
    }

    fn register(_registry: &mut Registry) {}
}
