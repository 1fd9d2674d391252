//! Clients, who write down what they are told.

use std::ops::Range;

use domain::{Accepted, Verdict};
use ports::{Fingerprint, RequestKey};

use super::act::{payload_of, remainder};
use super::*;
use crate::ledger::{Answer, Heard, Keyed, Ordered};
use crate::plan::Order;

impl World {
    /// A client sends one request with these submissions.
    pub(super) fn submit(&mut self, slot: usize, wishes: &[Wish], patience: u64, is_probe: bool) {
        let asked = self.ask(wishes, is_probe);
        let (first, count) = (asked.start, asked.len());
        self.note_request(slot, &asked);
        let Some(answer) = self.send_request(slot, asked, None, patience) else {
            self.ledger.tell(&self.sky, first, count, |_| {
                Told::Refused("no one listens".into())
            });
            return;
        };
        let (ledger, sky) = (Arc::clone(&self.ledger), Arc::clone(&self.sky));
        self.clients.spawn(async move {
            let answer = answer.await;
            ledger.tell(&sky, first, count, |index| match &answer {
                Some(Ok(accepted)) => {
                    accepted
                        .get(index)
                        .map_or(Told::Nothing, |accepted| Told::Accepted {
                            id: accepted.id,
                            created_at: accepted.created_at,
                        })
                }
                Some(Err(error)) => told_of(error),
                None => Told::Nothing,
            });
        });
    }

    /// The same under a key.
    pub(super) fn submit_keyed(&mut self, slot: usize, key: usize, wishes: &[Wish], patience: u64) {
        let asked = self.ask(wishes, false);
        let mut entries = self.ledger.entries();
        let body = entries.keyed.len();
        entries.keyed.push(Keyed {
            key,
            asked,
            heard: Vec::new(),
        });
        drop(entries);
        self.send_keyed(slot, body, patience);
    }

    /// What was first sent under this key is sent once more.
    pub(super) fn repeat(&mut self, slot: usize, key: usize, patience: u64) {
        let entries = self.ledger.entries();
        let first = entries.keyed.iter().position(|keyed| keyed.key == key);
        drop(entries);
        if let Some(body) = first {
            self.send_keyed(slot, body, patience);
        }
    }

    fn send_keyed(&mut self, slot: usize, body: usize, patience: u64) {
        let (key, asked) = {
            let entries = self.ledger.entries();
            (entries.keyed[body].key, entries.keyed[body].asked.clone())
        };
        let Ok(name) = RequestKey::new("anonymous", "submit", &key.to_string()) else {
            return;
        };
        let mut fingerprint = Fingerprint([0; 32]);
        fingerprint.0[..8].copy_from_slice(&(body as u64).to_le_bytes());
        self.trace().note(Who::WORLD, "key", key as u64, || {
            format!("the next request has the key {key}")
        });
        self.note_request(slot, &asked);
        let answer = self.send_request(slot, asked, Some((name, fingerprint)), patience);
        let (ledger, sky) = (Arc::clone(&self.ledger), Arc::clone(&self.sky));
        self.clients.spawn(async move {
            let heard = match answer {
                None => Heard::Refused("no one listens".into()),
                Some(answer) => match answer.await {
                    Some(Ok(accepted)) => Heard::Accepted(accepted),
                    Some(Err(SubmitError::KeyReused)) => Heard::Reused,
                    Some(Err(error)) => match told_of(&error) {
                        Told::Refused(reason) => Heard::Refused(reason),
                        _ => Heard::Nothing,
                    },
                    None => Heard::Nothing,
                },
            };
            ledger.hear(&sky, body, heard);
        });
    }

    /// Writes down what a client is about to ask for; answers its place among all that was asked for.
    fn ask(&self, wishes: &[Wish], is_probe: bool) -> Range<usize> {
        let store_now = self.store_clock.now();
        let default_attempts = self.plan.submit.max_attempts;
        let mut entries = self.ledger.entries();
        let request = entries.requests;
        entries.requests += 1;
        let first = entries.asked.len();
        for (number, wish) in (first..).zip(wishes) {
            let run_at = wish
                .run_in
                .map(|millis| store_now.after(Duration::from_millis(millis)));
            let payload = wish.script.to_payload(number);
            let submission = Submission {
                payload: payload_of(&payload),
                priority: Priority::clamped(i64::try_from(number % 11).unwrap_or(0)),
                run_at,
                max_attempts: wish.max_attempts,
                trace: None,
            };
            let max_attempts = wish.max_attempts.unwrap_or(default_attempts);
            entries.asked.push(Asked {
                payload,
                submission,
                script: wish.script.clone(),
                max_attempts,
                run_at,
                request,
                is_poison: max_attempts == 0 || max_attempts == u32::MAX,
                told: Told::Nothing,
                told_at: 0,
                is_probe,
            });
        }
        first..first + wishes.len()
    }

    fn note_request(&self, slot: usize, asked: &Range<usize>) {
        let entries = self.ledger.entries();
        let who = self.servers[slot].as_ref().map(|server| server.link.who);
        let first = asked.start as u64;
        self.trace().note(Who::WORLD, "submit", first, || {
            let payloads: Vec<&str> = entries.asked[asked.clone()]
                .iter()
                .map(|asked| asked.payload.as_str())
                .collect();
            let server = who.map_or("no one".to_owned(), |who| who.to_string());
            format!("{} to {server}", payloads.join(" "))
        });
    }

    /// Gives a request to a server, and to the client what comes of it: `None` if it hung up first, or the server died.
    /// Nobody answers when there is no server.
    fn send_request(
        &mut self,
        slot: usize,
        asked: Range<usize>,
        key: Option<(RequestKey, Fingerprint)>,
        patience: u64,
    ) -> Option<impl Future<Output = Option<Result<Vec<Accepted>, SubmitError>>> + use<>> {
        while self.clients.try_join_next().is_some() {}
        let server = self.servers[slot].as_mut()?;
        let submissions = self.ledger.entries().asked[asked]
            .iter()
            .map(|asked| asked.submission.clone())
            .collect();
        let (mut reply, answer) = oneshot::channel();
        let submitter = Arc::clone(&server.submitter);
        let link = Arc::clone(&server.link);
        while server.handlers.try_join_next().is_some() {}
        server.handlers.spawn(async move {
            tokio::select! {
                biased;
                // A client that hangs up takes its handler with it.
                () = reply.closed() => {}
                outcome = async {
                    link.pass().await;
                    let outcome = match key {
                        None => submitter.submit(submissions).await,
                        Some((key, fingerprint)) => {
                            submitter.submit_keyed(key, fingerprint, submissions).await
                        }
                    };
                    link.pass().await;
                    outcome
                } => {
                    let _ = reply.send(outcome);
                }
            }
        });
        let patience = Duration::from_millis(patience);
        Some(async move { timeout(patience, answer).await.ok()?.ok() })
    }

    /// A task that a client may want to give this order about: mostly one for which it makes sense at the moment.
    pub(super) fn choose_for(&self, order: Order, choice: u64) -> Option<TaskId> {
        let known = self.ledger.entries().known_ids();
        let status = |id: &TaskId| self.memory.task(*id).map(|task| task.status);
        let makes_sense = |id: &&TaskId| match order {
            Order::Cancel => status(id).is_some_and(|status| !status.is_at_rest()),
            Order::Retry => status(id) == Some(TaskStatus::Failed),
        };
        let sensible: Vec<TaskId> = known.iter().filter(makes_sense).copied().collect();
        let choices = if choice.is_multiple_of(4) || sensible.is_empty() {
            known
        } else {
            sensible
        };
        (!choices.is_empty()).then(|| choices[remainder(choice / 4, choices.len())])
    }

    /// A client gives an order about a task.
    pub(super) fn order(&mut self, slot: usize, id: TaskId, order: Order, must_be: Option<Answer>) {
        let Some(server) = &mut self.servers[slot] else {
            return;
        };
        let (commander, link) = (server.commander.clone(), Arc::clone(&server.link));
        let (ledger, sky) = (Arc::clone(&self.ledger), Arc::clone(&self.sky));
        let mut entries = ledger.entries();
        let number = entries.orders.len();
        entries.orders.push(Ordered {
            id,
            order,
            began_at: sky.trace.now(),
            answer: None,
            must_be,
        });
        drop(entries);
        sky.trace.note(Who::WORLD, "order", number as u64, || {
            format!("{order:?} {id} to {}", link.who)
        });
        while server.handlers.try_join_next().is_some() {}
        server.handlers.spawn(async move {
            link.pass().await;
            let verdict = match order {
                Order::Cancel => commander.cancel(id).await,
                Order::Retry => commander.retry(id).await,
            };
            link.pass().await;
            let answer = match verdict {
                Ok(Verdict::Obeyed(_)) => Answer::Obeyed,
                Ok(Verdict::Refused(status)) => Answer::Refused(status),
                Ok(Verdict::Unknown) => Answer::Unknown,
                Err(_) => Answer::Unavailable,
            };
            sky.trace.note(link.who, "answers", number as u64, || {
                format!("{order:?} {id}: {answer:?}")
            });
            ledger.entries().orders[number].answer = Some((answer, sky.trace.now()));
        });
    }

    pub(super) fn read(&mut self, slot: usize, id: TaskId) {
        let Some(server) = &mut self.servers[slot] else {
            return;
        };
        let began_at = self.sky.trace.now();
        let (reader, link) = (server.reader.clone(), Arc::clone(&server.link));
        let ledger = Arc::clone(&self.ledger);
        let sky = Arc::clone(&self.sky);
        server.handlers.spawn(async move {
            link.pass().await;
            let reading = reader.read(id).await;
            link.pass().await;
            let said = match reading {
                Ok(Reading::Done(result)) => Said::Done(result),
                Ok(Reading::Unfinished(task)) => Said::Unfinished(task.status),
                Ok(Reading::Unknown) => Said::Unknown,
                Err(_) => Said::Nothing,
            };
            sky.trace
                .note(link.who, "said", 0, || format!("{id}: {said:?}"));
            ledger.entries().reads.push(Read {
                id,
                began_at,
                ended_at: sky.trace.now(),
                said,
            });
        });
    }
}

fn told_of(error: &SubmitError) -> Told {
    match error {
        SubmitError::Unavailable(_) | SubmitError::Stopped => Told::Unavailable,
        refused => Told::Refused(refused.to_string()),
    }
}

impl Ledger {
    /// Writes down what a client was told about `count` submissions from `first` on.
    fn tell(&self, sky: &Sky, first: usize, count: usize, told: impl Fn(usize) -> Told) {
        let mut entries = self.entries();
        for index in 0..count {
            let told = told(index);
            let number = first + index;
            sky.trace.note(Who::WORLD, "told", number as u64, || {
                format!("{}: {told:?}", entries.asked[number].payload)
            });
            let asked = &mut entries.asked[number];
            asked.told = told;
            asked.told_at = sky.trace.now();
        }
    }

    /// Writes down what a client was told about a request with a key.
    fn hear(&self, sky: &Sky, body: usize, heard: Heard) {
        let mut entries = self.entries();
        let asked = entries.keyed[body].asked.clone();
        sky.trace.note(Who::WORLD, "told", asked.start as u64, || {
            format!("{}: {heard:?}", entries.asked[asked.start].payload)
        });
        if let Heard::Accepted(accepted) = &heard {
            for (number, accepted) in asked.zip(accepted) {
                let asked = &mut entries.asked[number];
                if asked.told == Told::Nothing {
                    asked.told = Told::Accepted {
                        id: accepted.id,
                        created_at: accepted.created_at,
                    };
                    asked.told_at = sky.trace.now();
                }
            }
        }
        entries.keyed[body].heard.push(heard);
    }
}
