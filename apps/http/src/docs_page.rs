//! The documentation as a page.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use poem::http::{HeaderMap, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponses, MetaSchema, MetaSchemaRef, Registry};

use crate::accept::takes_gzip;
use crate::conditional::Published;
use crate::document;
use crate::problem::Problem;

/// The browser may load nothing from elsewhere and talk to nobody but this service.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// `200` to a GET of the page.
pub(crate) struct DocsPage {
    gzip: bool,
    if_none_match: Option<String>,
}

impl DocsPage {
    /// The page in the form that the client takes. It is made when it is first asked for, which takes a moment, so not
    /// on a thread that serves requests.
    pub(crate) async fn for_client(
        headers: &HeaderMap,
        if_none_match: Option<String>,
    ) -> Result<Self, Problem> {
        let gzip = takes_gzip(headers);
        match tokio::task::spawn_blocking(|| LazyLock::force(&PAGE)).await {
            Ok(_) => Ok(Self {
                gzip,
                if_none_match,
            }),
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
    published: Published,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let plain = document::page();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory cannot fail.
    let gzipped = encoder
        .write_all(plain.as_bytes())
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    Page {
        published: Published::of(&plain),
        plain,
        gzipped,
    }
});

impl IntoResponse for DocsPage {
    fn into_response(self) -> Response {
        let known = self.if_none_match.as_deref();
        PAGE.published.answer(known, self.gzip, || {
            let response = Response::builder()
                .content_type(CONTENT_TYPE)
                .header(header::CONTENT_SECURITY_POLICY, POLICY);
            if self.gzip {
                response
                    .header(header::CONTENT_ENCODING, "gzip")
                    .body(PAGE.gzipped.as_slice())
            } else {
                response.body(PAGE.plain.as_str())
            }
        })
    }
}

impl ApiResponse for DocsPage {
    fn meta() -> MetaResponses {
        Published::meta(
            "The page.",
            MetaMediaType {
                content_type: "text/html",
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
            },
        )
    }

    fn register(_registry: &mut Registry) {}
}
