-- The ledger. Times are milliseconds since 1970 in UTC; ids of orders and adjustments are 16 bytes.

create table secrets (
    name text primary key,
    value blob not null
) strict, without rowid;

create table sales (
    id text primary key,
    name text not null,
    phase text not null check (phase in ('draft', 'armed', 'paused', 'closed')),
    opens_at integer,
    closes_at integer,
    hold_seconds integer not null check (hold_seconds >= 0),
    per_customer_limit integer check (per_customer_limit > 0),
    created_at integer not null,
    -- the journal's last number and the hash up to it
    seq integer not null default 0,
    hash blob not null,
    -- which life of the gate is valid
    epoch integer not null default 0,
    stage text not null default 'closed' check (stage in ('reloading', 'closed', 'live')),
    closed_epoch integer not null default 0,
    beats integer not null default 0,
    swept integer,
    check (closes_at is null or opens_at is null or closes_at > opens_at)
) strict, without rowid;

create table items (
    sale text not null references sales (id),
    sku text not null,
    position integer not null,
    name text not null,
    price_cents integer not null check (price_cents >= 0),
    currency text not null,
    stock integer not null check (stock >= 0),
    available integer not null check (available >= 0),
    held integer not null check (held >= 0),
    sold integer not null check (sold >= 0),
    primary key (sale, sku),
    check (stock = available + held + sold)
) strict, without rowid;

-- In the sequence of settling, so that new orders are written side by side; only the index of ids is written at random.
-- Many rows are inserted with one statement. If a check could end it half-way, SQLite would keep a copy of every page it
-- touches: so the reference is `deferrable` (checked at the commit), and no check of this table calls a function.
create table orders (
    sale text not null references sales (id) deferrable initially deferred,
    -- the number of its first move
    settled_seq integer not null,
    id blob not null unique,
    customer text not null,
    -- Not `in`: for more than two values SQLite builds a table of them anew with every row.
    state text not null check (state = 'held' or state = 'sold' or state = 'released' or state = 'refused'),
    reason text check (reason = 'cancelled' or reason = 'lapsed' or reason = 'sold_out' or reason = 'customer_limit'),
    accepted_at integer not null,
    settled_at integer not null,
    expires_at integer,
    -- the number of its latest move
    seq integer not null,
    primary key (sale, settled_seq),
    check ((reason is not null) = (state in ('released', 'refused')))
) strict, without rowid;

create index orders_due on orders (expires_at) where state = 'held';

-- units held and sold per customer, in sales with a limit
create table customers (
    sale text not null references sales (id),
    customer text not null,
    units integer not null check (units >= 0),
    primary key (sale, customer)
) strict, without rowid;

create table adjustments (
    id blob primary key check (length(id) = 16),
    sale text not null references sales (id),
    sku text not null,
    delta integer not null check (delta <> 0),
    reason text not null,
    at integer not null,
    seq integer not null,
    -- the stock after it
    stock integer not null
) strict, without rowid;

create index adjustments_by_sale on adjustments (sale, seq);

-- one row per move and line; a move without units has one row with an empty sku
create table moves (
    sale text not null references sales (id) deferrable initially deferred,
    seq integer not null,
    line integer not null,
    kind text not null,
    claim blob,
    sku text not null,
    units integer not null check (units >= 0),
    at integer not null,
    -- the hash of the journal up to and with this move
    hash blob not null,
    primary key (sale, seq, line)
) strict, without rowid;

-- What each order asks for: the lines of its first move.
create view order_lines as
    select o.sale, o.settled_seq, o.id, m.line as position, m.sku, m.units as quantity
    from orders o join moves m on m.sale = o.sale and m.seq = o.settled_seq;

-- which claims could not be kept: with an honest gate there are none
create index moves_refused on moves (claim) where kind = 'refuse';
