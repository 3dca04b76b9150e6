-- What the scripts of the Redis gate share: whether the memory of a sale can be trusted, and its parts. It stands in
-- front of each of them. A script reads and decides everything before its first write, because an error takes no write
-- back; and it writes everything before it ends, because nothing comes between two writes of one script.
--
-- KEYS[1] head     hash    the sale, its counters, and two fields per SKU: "available pending held", and when its lease ends
-- KEYS[2] pending  hash    id -> claim, as JSON
-- KEYS[3] known    set     the ids of all claims
-- KEYS[4] ids      string  the same ids in the sequence of their coming, 16 bytes each
-- KEYS[5] used     hash    customer -> units, in a sale with a limit
--
-- A script that does not know the sale, or does not trust what it finds, answers with a word: why.

local FORMAT = '1'
local UNITS_MAX = 1000000000

-- Which history of writes this server goes on with, and whether it is the one that writes it. Every start begins another one,
-- and so does a replica that takes over, also when the old primary later follows it and is promoted again, with its writes
-- in between gone. A replica shows the history of its primary, and lags behind.
local function life()
    local info = redis.call('INFO', 'replication')
    return info:match('master_replid:(%x+)'), info:match('role:(%w+)') == 'master'
end

-- The sale as it is remembered; or nil, and why not. A missing or foreign key shows in the counters of the head.
local function recall()
    local head = redis.pcall('HMGET', KEYS[1], 'format', 'life', 'stamp', 'skus', 'phase', 'opens_at', 'closes_at',
        'epoch', 'live', 'watermark', 'limit', 'hold', 'pending', 'known', 'customers')
    if head.err then return nil, 'damaged' end
    local history, is_primary = life()
    -- Whoever asks a replica has to look for the primary.
    if not is_primary then return nil, redis.error_reply('READONLY this is a replica') end
    if not head[1] then return nil, 'unknown' end
    if head[1] ~= FORMAT then return nil, 'of another format' end
    if head[2] ~= history then return nil, 'of another life of the server' end
    for field = 3, 15 do
        if not head[field] or (field > 7 and not tonumber(head[field])) then return nil, 'damaged' end
    end
    local sale = {
        stamp = head[3], skus = head[4],
        phase = head[5], opens_at = tonumber(head[6]), closes_at = tonumber(head[7]),
        epoch = tonumber(head[8]), live = tonumber(head[9]), watermark = tonumber(head[10]),
        limit = tonumber(head[11]), hold = tonumber(head[12]),
        pending = tonumber(head[13]), known = tonumber(head[14]), customers = tonumber(head[15]),
    }
    if redis.pcall('HLEN', KEYS[2]) ~= sale.pending or redis.pcall('SCARD', KEYS[3]) ~= sale.known
        or redis.pcall('STRLEN', KEYS[4]) ~= 16 * sale.known or redis.pcall('HLEN', KEYS[5]) ~= sale.customers then
        return nil, 'damaged'
    end
    return sale
end

-- Items as this script changes them; false for a SKU that the sale does not have.
local items = {}
local damaged = false

local function item(sku)
    local found = items[sku]
    if found == nil then
        found = false
        local counts = redis.call('HGET', KEYS[1], 'sku:' .. sku)
        if counts then
            local available, pending, held = counts:match('^(%d+) (%d+) (%d+)$')
            if available then
                found = { available = tonumber(available), pending = tonumber(pending), held = tonumber(held) }
            else
                damaged = true
            end
        end
        items[sku] = found
    end
    return found
end

-- The server's own time of day, in milliseconds: leases are told and kept by it alone.
local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- When the last lease of a SKU ends, or 0. As long as it lasts some process says "sold out" without asking, so nothing of the
-- SKU is admitted, whatever has come back.
local function lease_end(sku)
    return tonumber(redis.call('HGET', KEYS[1], 'lease:' .. sku) or 0) or 0
end

local function may_return(sale, found)
    return sale.hold > 0 and (found.held > 0 or found.pending > 0)
end

-- Adds the items to the fields of the head that are to be written.
local function put_items(fields)
    for sku, found in pairs(items) do
        if found then
            fields[#fields + 1] = 'sku:' .. sku
            fields[#fields + 1] = string.format('%d %d %d', found.available, found.pending, found.held)
        end
    end
end

-- What the sale is at this moment: Window::state.
local function state(window, now)
    if window.phase == 'closed' or (window.closes_at and now >= window.closes_at) then return 'ended' end
    if window.phase ~= 'armed' then return window.phase end
    if window.opens_at and now < window.opens_at then return 'scheduled' end
    return 'open'
end

-- What a verb makes of the window: Window::steer. A verb that does not fit changes nothing.
local function steer(window, verb, now)
    local is = state(window, now)
    if verb == 'open' and (is == 'draft' or is == 'scheduled') then
        window.phase, window.opens_at = 'armed', now
    elseif verb == 'pause' and (is == 'open' or is == 'scheduled') then
        window.phase = 'paused'
    elseif verb == 'resume' and is == 'paused' then
        window.phase = 'armed'
    elseif verb == 'close' and is ~= 'ended' then
        window.phase = 'closed'
    end
end
