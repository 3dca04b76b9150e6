use sluice::checkout::{Placement, place};
use sluice::clock::RealClock;
use sluice::deployment::embedded;
use sluice::model::*;
use std::sync::Arc;
use std::time::Instant;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[tokio::main]
async fn main() {
    let data = std::path::PathBuf::from("/tmp/scratch-data");
    let _ = std::fs::remove_dir_all(&data);
    let n: u32 = std::env::args().nth(1).map(|a| a.parse().unwrap()).unwrap_or(200_000);
    let conc: u32 = std::env::args().nth(2).map(|a| a.parse().unwrap()).unwrap_or(100);
    let d = Arc::new(embedded(&data, Arc::new(RealClock::new())).await.unwrap());
    {
        let d = d.clone();
        tokio::spawn(async move { d.run().await });
    }
    let shop = d.shop.clone();
    let sale = Sale {
        id: SaleId::new("s").unwrap(),
        name: "s".into(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: 600,
        per_customer_limit: None,
        items: vec![Item { sku: Sku::new("a").unwrap(), name: "a".into(), price_cents: 1, currency: "EUR".into() }],
    };
    shop.ledger.create(&sale, &[Units::new(n).unwrap()]).await.unwrap();
    sluice::reconcile::reload(&shop, &sale.id).await.unwrap();
    let t = Instant::now();
    let mut tasks = vec![];
    for c in 0..conc {
        let shop = shop.clone();
        let sale = sale.id.clone();
        tasks.push(tokio::spawn(async move {
            let mut ok = 0u32;
            for i in 0..n / conc {
                let cust = format!("c-{c}-{i}");
                let o = Order {
                    id: shop.mint.id("order", &sale, &cust, "k"),
                    sale: sale.clone(),
                    customer: Customer::new(&cust).unwrap(),
                    lines: vec![Line { sku: Sku::new("a").unwrap(), quantity: Units::new(1).unwrap() }],
                    accepted_at: shop.clock.now(),
                };
                if let Ok(Placement::Accepted(_)) = place(&shop, Arc::new(o)).await {
                    ok += 1;
                }
            }
            ok
        }));
    }
    let mut ok = 0;
    for t in tasks {
        ok += t.await.unwrap();
    }
    let s = t.elapsed().as_secs_f64();
    println!("accepted {ok} in {s:.2}s = {:.0}/s", ok as f64 / s);
    while shop.queue.depth().await.unwrap().waiting > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let s = t.elapsed().as_secs_f64();
    println!("settled after {s:.2}s = {:.0}/s", ok as f64 / s);
    let t = Instant::now();
    let mut k = 0;
    for i in 0..200_000u32 {
        let cust = format!("d-{i}");
        let o = Order {
            id: shop.mint.id("order", &sale.id, &cust, "k"),
            sale: sale.id.clone(),
            customer: Customer::new(&cust).unwrap(),
            lines: vec![Line { sku: Sku::new("a").unwrap(), quantity: Units::new(1).unwrap() }],
            accepted_at: shop.clock.now(),
        };
        if let Ok(Placement::SoldOut { .. }) = place(&shop, Arc::new(o)).await {
            k += 1;
        }
    }
    println!("refused {k} {:.0}/s on one task", k as f64 / t.elapsed().as_secs_f64());
    let t = Instant::now();
    let a = sluice::audit::audit(&shop, &sale.id).await.unwrap().unwrap();
    println!("audit {:?} {:.2}s", a.verdict, t.elapsed().as_secs_f64());
    drop(d);
    println!("db {} MB", std::fs::metadata(data.join("sluice.db")).unwrap().len() / 1_000_000);
}
