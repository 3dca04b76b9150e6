-- Admits a batch of claims, one after the other: Gate::admit.
-- ARGV: now, then per claim: id, customer ('' for a withdrawal), claim as JSON, number of lines, and per line: SKU, units
-- Answers: epoch, stamp, SKUs, then per claim one of
--   0 unloaded   1 admitted   {2} or {2, claim} known before   {3, line, may return, available} sold out
--   {4, limit, used} limit reached   {5} or {5, opens_at} not open   6 paused   7 ended

local sale, why = recall()
if not sale then return why end
local now = tonumber(ARGV[1])
local is = state(sale, now)

local claims, ids, customers = {}, {}, {}
local at = 2
while ARGV[at] do
    local claim = { id = ARGV[at], customer = ARGV[at + 1], body = ARGV[at + 2], units = 0 }
    local lines = tonumber(ARGV[at + 3])
    at = at + 4
    for line = 1, lines do
        claim[line] = { sku = ARGV[at], units = tonumber(ARGV[at + 1]) }
        claim.units = claim.units + claim[line].units
        at = at + 2
    end
    claims[#claims + 1] = claim
    ids[#ids + 1] = claim.id
    customers[#customers + 1] = claim.customer
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
local function shut(claim)
    if is == 'ended' then return 7 end
    if is == 'open' or claim.customer == '' then return nil end
    if is == 'paused' then return 6 end
    return is == 'scheduled' and { 5, sale.opens_at } or { 5 }
end

-- Takes the units of all lines, or none; answers with what is missing.
local function take(claim)
    for number, line in ipairs(claim) do
        local found = item(line.sku)
        if found and found.available >= line.units then
            found.available = found.available - line.units
        else
            for before = 1, number - 1 do
                local back = items[claim[before].sku]
                back.available = back.available + claim[before].units
            end
            if not found then return 0 end
            return { 3, number, may_return(sale, found) and 1 or 0, found.available }
        end
    end
    for _, line in ipairs(claim) do
        items[line.sku].pending = items[line.sku].pending + line.units
    end
    return nil
end

local bodies, fresh, fresh_bodies = {}, {}, {}
local changed_used = {}

local function decide(number, claim)
    if bodies[claim.id] then return { 2, bodies[claim.id] } end
    if known[number] == 1 then
        local body = redis.call('HGET', KEYS[2], claim.id)
        return body and { 2, body } or { 2 }
    end
    if sale.live ~= 1 then return 0 end
    local refusal = shut(claim)
    if refusal then return refusal end
    local limited = sale.limit >= 0 and claim.customer ~= ''
    if limited and used[claim.customer] + claim.units > sale.limit then
        return { 4, sale.limit, used[claim.customer] }
    end
    local missing = take(claim)
    if missing then return missing end
    if limited then
        used[claim.customer] = used[claim.customer] + claim.units
        changed_used[claim.customer] = true
    end
    bodies[claim.id] = claim.body
    fresh[#fresh + 1] = claim.id
    fresh_bodies[#fresh_bodies + 1] = claim.id
    fresh_bodies[#fresh_bodies + 1] = claim.body
    return 1
end

local answers = { sale.epoch, sale.stamp, sale.skus }
for number, claim in ipairs(claims) do
    answers[number + 3] = decide(number, claim)
end
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
