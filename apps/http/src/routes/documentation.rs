//! The OpenAPI document and its page.

use poem::http::HeaderMap;
use poem_openapi::OpenApi;
use poem_openapi::param::Header;

use super::Tag;
use crate::docs_page::DocsPage;
use crate::document::{Document, ToDocs};
use crate::problem::{Failures, Kind, Refused};

/// The routes that readers come for.
#[derive(Clone, Copy)]
pub(crate) struct Documentation;

pub(crate) struct DocsFailures;

impl Failures for DocsFailures {
    const OPERATION: &'static str = "readDocs";
    const KINDS: &'static [Kind] = &[Kind::Internal];
}

#[OpenApi]
impl Documentation {
    /// Go to the documentation
    #[oai(
        path = "/",
        method = "get",
        operation_id = "goToDocs",
        tag = "Tag::Documentation"
    )]
    async fn go_to_docs(&self) -> ToDocs {
        ToDocs
    }

    /// Read the documentation
    ///
    /// Swagger UI. The page is one file and loads nothing from elsewhere.
    #[oai(
        path = "/docs",
        method = "get",
        operation_id = "readDocs",
        tag = "Tag::Documentation"
    )]
    async fn read_docs(
        &self,
        /// The `ETag` of an answer that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<DocsPage, Refused<DocsFailures>> {
        Ok(DocsPage::for_client(headers, if_none_match.0).await?)
    }

    /// Read this document
    #[oai(
        path = "/openapi.json",
        method = "get",
        operation_id = "readDocument",
        tag = "Tag::Documentation"
    )]
    async fn read_document(
        &self,
        /// The `ETag` of an answer that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Document {
        Document {
            if_none_match: if_none_match.0,
        }
    }
}
