-- Applies the moves that come directly after the last one applied, in one step with their number: Gate::follow.
-- ARGV: epoch, then per move: number, kind, moment, id or '', customer or '', number of lines, and per line: SKU, units
-- Answers with the number of the last move applied now.

local sale, why = recall()
if not sale then return why end
if sale.epoch ~= tonumber(ARGV[1]) then return 'of another epoch' end

local SETTLES = { hold = true, sell = true, refuse = true, withdraw = true }
local STEERS = { open = true, pause = true, resume = true, close = true }
local watermark_before = sale.watermark

local function plus(sum, more)
    return sum + more <= UNITS_MAX and sum + more or sum
end

local function minus(sum, fewer)
    return sum >= fewer and sum - fewer or 0
end

local used, used_before = {}, {}
local function used_by(customer)
    if used[customer] == nil then
        local units = redis.call('HGET', KEYS[5], customer)
        if units and not tonumber(units) then damaged = true end
        used_before[customer] = units and tonumber(units) or false
        used[customer] = used_before[customer]
    end
    return used[customer]
end

local gone, gone_ids, late, late_ids = {}, {}, {}, {}

-- What a move does to the counts of an item; `taken` says that the units were set aside here before.
local function count(kind, found, units, taken)
    if SETTLES[kind] then
        local from = taken and 'pending' or 'available'
        found[from] = minus(found[from], units)
    end
    if kind == 'add' then
        found.available = plus(found.available, units)
    elseif kind == 'hold' then
        found.held = plus(found.held, units)
    elseif kind == 'confirm' then
        found.held = minus(found.held, units)
    elseif kind == 'cancel' or kind == 'lapse' then
        found.held = minus(found.held, units)
        found.available = plus(found.available, units)
    end
end

-- A claim that the ledger settled and this gate never admitted.
local function take_late(move)
    if move.id ~= '' and not late[move.id] and redis.call('SISMEMBER', KEYS[3], move.id) == 0 then
        late[move.id] = true
        late_ids[#late_ids + 1] = move.id
    end
    if move.customer ~= '' and sale.limit >= 0 then
        local units = used_by(move.customer) or 0
        for _, line in ipairs(move) do units = plus(units, line.units) end
        used[move.customer] = units
    end
end

local function give_back(move)
    local units = move.customer ~= '' and used_by(move.customer)
    if not units then return end
    local sum = 0
    for _, line in ipairs(move) do sum = plus(sum, line.units) end
    used[move.customer] = minus(units, sum)
end

local function apply(move)
    local kind = move.kind
    local taken = SETTLES[kind] and move.id ~= '' and not gone[move.id]
        and redis.call('HEXISTS', KEYS[2], move.id) == 1
    if taken then
        gone[move.id] = true
        gone_ids[#gone_ids + 1] = move.id
    end
    for _, line in ipairs(move) do
        local found = item(line.sku)
        if found then count(kind, found, line.units, taken) end
    end
    if STEERS[kind] then
        steer(sale, kind, move.at)
    elseif kind == 'refuse' then
        -- The ledger could not keep what was admitted here, so this memory is wrong: it is loaded anew.
        sale.live = 0
    elseif kind == 'cancel' or kind == 'lapse' then
        give_back(move)
    elseif SETTLES[kind] and not taken then
        take_late(move)
    end
end

local at = 2
while ARGV[at] do
    local lines = tonumber(ARGV[at + 5])
    if tonumber(ARGV[at]) == sale.watermark + 1 then
        local move = { kind = ARGV[at + 1], at = tonumber(ARGV[at + 2]), id = ARGV[at + 3], customer = ARGV[at + 4] }
        for line = 1, lines do
            move[line] = { sku = ARGV[at + 4 + 2 * line], units = tonumber(ARGV[at + 5 + 2 * line]) }
        end
        apply(move)
        sale.watermark = sale.watermark + 1
    end
    at = at + 6 + 2 * lines
end
if damaged then return 'damaged' end
if sale.watermark == watermark_before then return sale.watermark end

local sets, dels = {}, {}
for customer, units in pairs(used) do
    local before = used_before[customer]
    if units == 0 and before then
        dels[#dels + 1] = customer
    elseif units and units ~= 0 then
        if not before then sale.customers = sale.customers + 1 end
        sets[#sets + 1] = customer
        sets[#sets + 1] = units
    end
end
local fields = {
    'watermark', sale.watermark, 'live', sale.live, 'phase', sale.phase, 'opens_at', sale.opens_at or '',
    'pending', sale.pending - #gone_ids, 'known', sale.known + #late_ids, 'customers', sale.customers - #dels,
}
put_items(fields)

if #gone_ids > 0 then redis.call('HDEL', KEYS[2], unpack(gone_ids)) end
if #late_ids > 0 then
    redis.call('SADD', KEYS[3], unpack(late_ids))
    redis.call('APPEND', KEYS[4], table.concat(late_ids))
end
if #sets > 0 then redis.call('HSET', KEYS[5], unpack(sets)) end
if #dels > 0 then redis.call('HDEL', KEYS[5], unpack(dels)) end
redis.call('HSET', KEYS[1], unpack(fields))
return sale.watermark
