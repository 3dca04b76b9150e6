//! The limits that a client or an operator can meet, in one table; a file keeps those that only it knows. The unit stands
//! last in the name.

use std::time::Duration;

/// Units of one item, and the largest stock of a SKU.
pub const STOCK_UNITS_MAX: u32 = 1_000_000_000;
/// Items of one sale.
pub const SALE_ITEMS_MAX: usize = 64;
/// Lines of one order.
pub const ORDER_LINES_MAX: usize = 16;
/// Units of one order line.
pub const LINE_UNITS_MAX: u32 = 10_000;
/// Price of one unit, in the smallest unit of its currency.
pub const PRICE_CENTS_MAX: u64 = 1_000_000_000_000;
/// Length of a sale's id, and of a SKU.
pub const ID_BYTES_MAX: usize = 64;
/// Length of a customer's id and of an idempotency key.
pub const TEXT_BYTES_MAX: usize = 128;
/// Length of a sale's or item's display name and of an adjustment's reason.
pub const NAME_BYTES_MAX: usize = 200;
/// How long a hold may last: 30 days.
pub const HOLD_SECONDS_MAX: u32 = 30 * 24 * 3600;
/// How long `Prefer: wait` may wait.
pub const WAIT_SECONDS_MAX: u64 = 30;

/// Requests of one crowd; each is remembered with its answer.
pub const CROWD_REQUESTS_MAX: usize = 5_000_000;

/// Body of a request.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Head of a request: request line and headers.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Open connections of one server.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Live streams of one server.
pub const WATCHERS_MAX: usize = 1_000;
/// From the first byte a client owes us to the end of the request's head; also how long a connection may stay silent.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// From the request's head to the end of its body.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a client may take no byte of an answer that waits for it.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// From SIGTERM to the end of the process.
pub const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(10);

/// From a question to the gate's server to its answer; after it, what happened is unknown.
pub const GATE_CALL_TIME_MAX: Duration = Duration::from_secs(2);
/// For a new connection to the gate's server, until it has answered once.
pub const GATE_CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Claims of one sale that wait for the gate's server, in one process; more are refused with `overloaded`. The server
/// decides on so many within a fraction of a second.
pub const GATE_WAITING_MAX: usize = 10_000;
/// How long a process may say "sold out" after the gate's server did, without asking it again; as long, the server admits
/// nothing of that SKU, so units that come back wait for it at most.
pub const GATE_LEASE: Duration = Duration::from_millis(20);
/// Claims of one sale that wait behind the sold-out latch, where one answer serves them all.
pub const LATCH_WAITING_MAX: usize = 50_000;
/// Claims that the gate's server decides on in one step, in which it does nothing else.
pub const GATE_BATCH_CLAIMS_MAX: usize = 500;
/// Such steps of one sale that are under way at the same time, from one process.
pub const GATE_BATCHES_MAX: usize = 2;
/// Ids or customers of a snapshot brought to the gate's server at once.
pub const GATE_LOAD_PART_MAX: usize = 2_000;
/// How long an unfinished load lies on the gate's server.
pub const GATE_LOAD_TIME_MAX: Duration = Duration::from_secs(600);
/// Ids that the latch learns from the gate's server at once.
pub const GATE_PROBE_IDS_MAX: usize = 16_384;
/// Pending claims read from the gate's server at once, more or less.
pub const GATE_PENDING_PAGE_CLAIMS: usize = 1_000;

/// Claims that wait for the queue, in one process; more are refused with `overloaded`.
pub const PUSH_WAITING_MAX: usize = 50_000;
/// An order that takes longer than this from the question to the gate to the queue's answer shows that one of them takes in
/// less than comes. Far below [`PUSH_TIME_MAX`]: what is admitted has to be accepted in time.
pub const PUSH_SLOW_TIME: Duration = Duration::from_millis(400);
/// How long an order may take on its way through a slow gate to a slow queue, more or less.
pub const PUSH_SLOW_TIME_MAX: Duration = Duration::from_millis(800);
/// Orders that may be on their way then, at least and at most; more are refused with `overloaded` before the gate is asked.
pub const PUSH_SLOW_CLAIMS: [usize; 2] = [500, 1_000];
/// Claims in one message of the queue.
pub const PUSH_BATCH_CLAIMS_MAX: usize = 1_000;
/// Size of one parcel: what travels through RabbitMQ as one message.
pub const PARCEL_BYTES_MAX: usize = 256 * 1024;
/// RabbitMQ queues that share the sales. All processes must agree, so it changes only while no sale is live.
pub const QUEUE_SHARDS: usize = 4;
/// Parcels that wait in one RabbitMQ queue; more are refused with `overloaded`.
pub const SHARD_PARCELS_MAX: u32 = 1_000_000;
/// Parcels of each shard that a worker holds before it has settled them: while some are settled, others are on their way.
pub const PULL_AHEAD_PARCELS_MAX: u16 = 128;
/// From the question to the gate to RabbitMQ's answer; a later answer promises nothing. A push itself is given up after it.
pub const PUSH_TIME_MAX: Duration = Duration::from_secs(2);
/// Claims in one settlement transaction.
pub const SETTLE_BATCH_CLAIMS_MAX: usize = 2_000;
/// Due holds taken by one transaction.
pub const LAPSE_BATCH_ORDERS_MAX: usize = 1_000;
/// Moves read from the journal at once.
pub const JOURNAL_PAGE_MOVES_MAX: usize = 1_000;
/// Orders on one page of the list.
pub const PAGE_ORDERS_MAX: usize = 1_000;
/// Orders on one page, unless asked otherwise.
pub const PAGE_ORDERS_DEFAULT: usize = 100;

/// Connections of one process to PostgreSQL: for settlement, for other writes, for reads, for recounts.
pub const LEDGER_LANE_CONNECTIONS_MAX: [usize; 4] = [1, 3, 3, 2];
/// How long a piece of work waits for one of them.
pub const LEDGER_WAIT_TIME_MAX: Duration = Duration::from_secs(5);
/// From the first packet to PostgreSQL until the session is set up.
pub const LEDGER_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// One round trip to PostgreSQL; its own limits below are shorter, so that it answers why.
pub const LEDGER_TRIP_TIME_MAX: Duration = Duration::from_secs(10);
/// One statement, by PostgreSQL's own count.
pub const LEDGER_STATEMENT_TIME_MAX: Duration = Duration::from_secs(8);
/// How long a statement waits for a row that another process has locked; then it is tried again.
pub const LEDGER_LOCK_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a process that stopped in the middle of a transaction may keep its rows locked.
pub const LEDGER_IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// A recount or a snapshot of one sale.
pub const LEDGER_RECOUNT_TIME_MAX: Duration = Duration::from_secs(600);
/// Lookups and turns of orders that wait for the ledger, in one process; more are refused with `overloaded`.
pub const LEDGER_WAITING_MAX: usize = 20_000;
/// Orders looked up, confirmed or cancelled in one transaction.
pub const LEDGER_BATCH_ORDERS_MAX: usize = 1_000;
