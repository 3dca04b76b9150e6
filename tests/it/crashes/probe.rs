//! A sale that is never sold out, whose orders show that a deployment is in full service.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use sluice::load::wire::Target;

use crate::buyers::{Buyers, Habit, Told};
use crate::cluster::TOKEN;
use crate::support::eventually;

const SALE: &str = "probe";

/// From the return of the last part to full service.
pub(crate) const BACK_TIME_MAX: Duration = Duration::from_secs(5);

/// Creates a sale of so many units of `a`, open since long ago.
pub(crate) async fn create(target: &Target, sale: &str, stock: usize, hold_seconds: u32) {
    let body = json!({
        "id": sale, "name": sale, "opens_at": "2020-01-01T00:00:00Z", "hold_seconds": hold_seconds,
        "items": [{"sku": "a", "stock": stock}],
    });
    let _created: Value = target.ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&body)).await.unwrap();
}

/// Creates the sale.
pub(crate) async fn prepare(target: &Target) {
    create(target, SALE, 1_000_000, 600).await;
}

/// Comes back once this server has accepted a new order and the order is settled.
pub(crate) async fn serves(target: &Target, customer: &str) {
    let buyer = Buyers::come(std::slice::from_ref(target), SALE, customer, 0, Habit::Keep);
    let Told::Promised(id) = buyer.one_more(customer).await else { panic!("the probe is sold out") };
    eventually("the probe is settled", async || {
        let order = target.ask::<Value>(Method::GET, &format!("/v1/orders/{id}"), None, None).await;
        order.is_ok_and(|order| order["state"] == "held")
    })
    .await;
}
