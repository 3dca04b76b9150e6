-- Admits a batch of claims, one after the other: Gate::admit.
-- ARGV: now, then per claim: id, customer ('' for a withdrawal), claim as JSON, number of lines, and per line: SKU, units
-- Answers: epoch, stamp, SKUs, then per claim one of
--   0 unloaded   1 admitted   {2} or {2, claim} known before   {3, line, may return, available} sold out
--   {4, limit, used} limit reached   {5} or {5, opens_at} not open   6 paused   7 ended
--   {8, milliseconds} leased: units are there again, and may be asked for once the lease has ended

local sale, why = recall()
if not sale then return why end
local now = tonumber(ARGV[1])
local is = state(sale, now)

-- Per claim: id, customer, and where in ARGV its lines begin: their number, after the claim itself.
local ids, customers, lines_at = {}, {}, {}
local at = 2
while ARGV[at] do
    local number = #ids + 1
    ids[number], customers[number], lines_at[number] = ARGV[at], ARGV[at + 1], at + 3
    at = at + 4 + 2 * tonumber(ARGV[at + 3])
end
local known = redis.call('SMISMEMBER', KEYS[3], unpack(ids))
local used, used_before = {}, {}
if sale.limit >= 0 then
    local units = redis.call('HMGET', KEYS[5], unpack(customers))
    for number, customer in ipairs(customers) do
        if units[number] and not tonumber(units[number]) then return 'damaged' end
        used_before[customer] = tonumber(units[number])
        used[customer] = used_before[customer] or 0
    end
end

-- Why the window says no: withdrawals need no window, only a sale that is not over.
local function shut(customer)
    if is == 'ended' then return 7 end
    if is == 'open' or customer == '' then return nil end
    if is == 'paused' then return 6 end
    return is == 'scheduled' and { 5, sale.opens_at } or { 5 }
end

local function units_of(first, last)
    local sum = 0
    for sku_at = first, last, 2 do sum = sum + tonumber(ARGV[sku_at + 1]) end
    return sum
end

-- Why a line cannot be had now.
local function lacks(sku, units, number)
    local found = item(sku)
    if not found then return 0 end
    if found.available < units then return { 3, number, may_return(sale, found) and 1 or 0, found.available } end
    if not found.lease_end then found.lease_end = lease_end(sku) end
    local wait = found.lease_end > 0 and found.lease_end - server_time() or 0
    return wait > 0 and { 8, wait } or nil
end

-- Takes the units of all lines, or none; answers with what is missing.
local function take(first, last)
    for sku_at = first, last, 2 do
        local units = tonumber(ARGV[sku_at + 1])
        local missing = lacks(ARGV[sku_at], units, (sku_at - first) / 2 + 1)
        if missing then
            for taken_at = first, sku_at - 2, 2 do
                local back = items[ARGV[taken_at]]
                back.available = back.available + tonumber(ARGV[taken_at + 1])
            end
            return missing
        end
        items[ARGV[sku_at]].available = items[ARGV[sku_at]].available - units
    end
    for sku_at = first, last, 2 do
        local found = items[ARGV[sku_at]]
        found.pending = found.pending + tonumber(ARGV[sku_at + 1])
    end
    return nil
end

local bodies, fresh, fresh_bodies, changed_used = {}, {}, {}, {}

local function decide(number)
    local id, customer, count_at = ids[number], customers[number], lines_at[number]
    if bodies[id] then return { 2, bodies[id] } end
    if known[number] == 1 then
        local body = redis.call('HGET', KEYS[2], id)
        -- Whoever pushes it has to do so under an epoch that is live.
        if body and sale.live == 0 then return 0 end
        return body and { 2, body } or { 2 }
    end
    if sale.live ~= 1 then return 0 end
    local refusal = shut(customer)
    if refusal then return refusal end
    local first, last = count_at + 1, count_at + 2 * tonumber(ARGV[count_at])
    local limited = sale.limit >= 0 and customer ~= ''
    local units = limited and units_of(first, last)
    if limited and used[customer] + units > sale.limit then return { 4, sale.limit, used[customer] } end
    local missing = take(first, last)
    if missing then return missing end
    if limited then
        used[customer] = used[customer] + units
        changed_used[customer] = true
    end
    bodies[id] = ARGV[count_at - 1]
    fresh[#fresh + 1] = id
    fresh_bodies[#fresh_bodies + 1] = id
    fresh_bodies[#fresh_bodies + 1] = bodies[id]
    return 1
end

local answers = { sale.epoch, sale.stamp, sale.skus }
for number = 1, #ids do answers[number + 3] = decide(number) end
if damaged then return 'damaged' end
if #fresh == 0 then return answers end

local customers_now, changes = sale.customers, {}
for customer in pairs(changed_used) do
    if not used_before[customer] then customers_now = customers_now + 1 end
    changes[#changes + 1] = customer
    changes[#changes + 1] = used[customer]
end
local fields = { 'pending', sale.pending + #fresh, 'known', sale.known + #fresh, 'customers', customers_now }
put_items(fields)

redis.call('HSET', KEYS[2], unpack(fresh_bodies))
redis.call('SADD', KEYS[3], unpack(fresh))
redis.call('APPEND', KEYS[4], table.concat(fresh))
if #changes > 0 then redis.call('HSET', KEYS[5], unpack(changes)) end
redis.call('HSET', KEYS[1], unpack(fields))
return answers
