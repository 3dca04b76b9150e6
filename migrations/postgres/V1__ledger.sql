-- The ledger. It has the number and the name of the embedded schema's migration; the queue's tables are not here, because
-- RabbitMQ keeps the queue. Names are compared byte by byte (collate "C"), so that every process locks in one order.

create table secrets (
    name text primary key,
    value bytea not null
);

create table sales (
    id text collate "C" primary key,
    name text not null,
    phase text not null check (phase in ('draft', 'armed', 'paused', 'closed')),
    opens_at timestamptz,
    closes_at timestamptz,
    hold_seconds integer not null check (hold_seconds >= 0),
    per_customer_limit integer check (per_customer_limit > 0),
    created_at timestamptz not null,
    seq bigint not null default 0,
    hash bytea not null check (length(hash) = 32),
    epoch bigint not null default 0,
    stage text not null default 'closed' check (stage in ('reloading', 'closed', 'live')),
    closed_epoch bigint not null default 0,
    beats bigint not null default 0,
    swept bigint,
    check (closes_at is null or opens_at is null or closes_at > opens_at)
-- Every batch writes the row anew; there is room for that on its own page.
) with (fillfactor = 20);

create table items (
    sale text collate "C" not null references sales (id),
    sku text collate "C" not null,
    position integer not null,
    name text not null,
    price_cents bigint not null check (price_cents >= 0),
    currency text not null,
    stock integer not null check (stock >= 0),
    available integer not null check (available >= 0),
    held integer not null check (held >= 0),
    sold integer not null check (sold >= 0),
    primary key (sale, sku),
    check (stock = available + held + sold)
) with (fillfactor = 20);

-- In the sequence of settling, so that new orders are written side by side; only the index of ids is written at random.
-- Orders, customers and moves do not refer to sales: whoever writes them holds the sale's row, and a check per row takes
-- longer than all the rest of a settlement. Items refer to it, so that no sale with items can be deleted.
create table orders (
    sale text collate "C" not null,
    settled_seq bigint not null,
    id uuid not null unique,
    customer text collate "C" not null,
    state text not null check (state in ('held', 'sold', 'released', 'refused')),
    reason text check (reason in ('cancelled', 'lapsed', 'sold_out', 'customer_limit')),
    accepted_at timestamptz not null,
    settled_at timestamptz not null,
    expires_at timestamptz,
    seq bigint not null,
    primary key (sale, settled_seq),
    check ((reason is not null) = (state in ('released', 'refused')))
);

create index orders_due on orders (expires_at) where state = 'held';

create table customers (
    sale text collate "C" not null,
    customer text collate "C" not null,
    units integer not null check (units >= 0),
    primary key (sale, customer)
);

create table adjustments (
    id uuid primary key,
    sale text collate "C" not null references sales (id),
    sku text collate "C" not null,
    delta bigint not null check (delta <> 0),
    reason text not null,
    at timestamptz not null,
    seq bigint not null,
    stock integer not null
);

create index adjustments_by_sale on adjustments (sale, seq);

create table moves (
    sale text collate "C" not null,
    seq bigint not null,
    line integer not null,
    kind text not null,
    claim uuid,
    sku text collate "C" not null,
    units integer not null check (units >= 0),
    at timestamptz not null,
    hash bytea not null check (length(hash) = 32),
    primary key (sale, seq, line)
);

create view order_lines as
    select o.sale, o.settled_seq, o.id, m.line as position, m.sku, m.units as quantity
    from orders o join moves m on m.sale = o.sale and m.seq = o.settled_seq;

create index moves_refused on moves (claim) where kind = 'refuse';

comment on table secrets is 'what the deployment must not lose: without the secret, a retry leads to another order';
comment on table sales is 'one row per sale; whoever writes to a sale locks its row first';
comment on column sales.seq is 'the number of the last move in the journal';
comment on column sales.hash is 'the hash of the journal up to that move';
comment on column sales.epoch is 'the latest life of the gate''s memory';
comment on column sales.stage is 'how far the gate''s reload has come';
comment on column sales.closed_epoch is 'what a gate below this epoch admitted came too late';
comment on column sales.beats is 'how often the loader of the epoch has shown that it is alive';
comment on column sales.swept is 'the number of the last sweep whose marker was settled';
comment on table items is 'where the units of each SKU are: stock = available + held + sold';
comment on column items.position is 'the operator''s sequence';
comment on table orders is 'every order that was decided, in the sequence of settling';
comment on column orders.settled_seq is 'the number of its first move';
comment on column orders.id is 'the order''s id without ord_ in front';
comment on column orders.seq is 'the number of its latest move';
comment on column orders.accepted_at is 'on the clock of the process that accepted it';
comment on column orders.expires_at is 'when its hold lapses or lapsed';
comment on view order_lines is 'what each order asks for: the lines of its first move';
comment on table customers is 'units held and sold per customer, in sales with a limit';
comment on table adjustments is 'stock added, or withdrawn (delta < 0)';
comment on column adjustments.stock is 'the stock after it';
comment on table moves is 'the journal, append-only: one row per move and line; a move without units has one row with an empty sku';
comment on column moves.claim is 'which order or adjustment it was; null for the sale''s own moves';
comment on column moves.hash is 'the hash of the journal up to and with this move';
