-- The queue, in a file of its own. A message carries many claims; times are milliseconds since 1970 in UTC.

create table messages (
    position integer primary key autoincrement,
    claims integer not null check (claims > 0),
    pushed_at integer not null,
    -- the last one, so that nobody who counts has to read over it
    body text not null
) strict;

create table parked (
    position integer primary key,
    body text not null,
    why text not null,
    parked_at integer not null
) strict;

-- the fence: under which epochs claims may be pushed
create table bindings (
    sale text not null,
    epoch integer not null,
    primary key (sale, epoch)
) strict, without rowid;
