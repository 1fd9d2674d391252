//! Going through tasks, page by page.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Client, Error, Repeat, Status};

/// Which tasks are looked for; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this status.
    pub status: Option<Status>,
    /// Of this priority.
    pub priority: Option<u8>,
    /// Created at this time (RFC 3339, any offset) or later.
    pub created_after: Option<String>,
    /// Created before this time.
    pub created_before: Option<String>,
    /// How many are asked for at once, 1 to 1,000; the server's default if left out.
    pub page: Option<u16>,
}

/// A task among others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedTask {
    /// The task.
    pub id: Uuid,
    /// What is to be processed.
    pub payload: String,
    /// How urgent it is.
    pub priority: u8,
    /// Where it is.
    pub status: Status,
    /// The processed payload, if it is done.
    pub result: Option<String>,
    /// When it was stored.
    pub created_at: String,
    /// When its status last changed.
    pub updated_at: String,
    /// How many attempts have ended.
    pub attempts: u32,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Goes through tasks, the newest first. Made by [`Client::list`].
///
/// Each task that keeps matching is met exactly once, whatever is submitted, moved and deleted meanwhile.
#[derive(Debug)]
pub struct Listing {
    client: Client,
    filter: Filter,
    unread: VecDeque<ListedTask>,
    rest: Rest,
}

/// What is behind the tasks that were read.
#[derive(Debug)]
enum Rest {
    /// A page, the first or the one of this cursor.
    Page(Option<String>),
    Nothing,
}

#[derive(Deserialize)]
struct Page {
    tasks: VecDeque<ListedTask>,
    next: Option<String>,
}

impl Listing {
    pub(crate) fn new(client: &Client, filter: Filter) -> Self {
        Self {
            client: client.clone(),
            filter,
            unread: VecDeque::new(),
            rest: Rest::Page(None),
        }
    }

    /// The next task; `None` behind the last. A page is asked for when the one before it has been read.
    ///
    /// # Errors
    /// [`Error`]; a filter that the server cannot read is a [`Problem`](crate::Problem) that names every wrong parameter. Nothing is
    /// passed over: the next call asks for the same page.
    pub async fn next(&mut self) -> Result<Option<ListedTask>, Error> {
        loop {
            if let Some(task) = self.unread.pop_front() {
                return Ok(Some(task));
            }
            // A page may be empty and not be the last.
            let Rest::Page(cursor) = &self.rest else {
                return Ok(None);
            };
            let page = self.page(cursor.as_deref()).await?;
            self.unread = page.tasks;
            self.rest = page
                .next
                .map_or(Rest::Nothing, |next| Rest::Page(Some(next)));
        }
    }

    /// The same as a stream, which ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<ListedTask, Error>> + Send {
        stream::try_unfold(self, |mut listing| async {
            Ok(listing.next().await?.map(|task| (task, listing)))
        })
    }

    async fn page(&self, cursor: Option<&str>) -> Result<Page, Error> {
        let Self { client, filter, .. } = self;
        let mut url = client.address(&["tasks"]);
        let parameters = [
            ("status", filter.status.map(|status| status.to_string())),
            ("priority", filter.priority.map(|number| number.to_string())),
            ("createdAfter", filter.created_after.clone()),
            ("createdBefore", filter.created_before.clone()),
            ("limit", filter.page.map(|number| number.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        url.query_pairs_mut().extend_pairs(
            parameters
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let request = || client.http.request(Method::GET, url.clone());
        let timeout = client.options.timeout;
        client
            .read(client.send(Repeat::Always, timeout, request).await?)
            .await
    }
}
