-- Puts a snapshot, and what is carried over, in the place of what is remembered: Gate::load.
-- KEYS[6..9]: pending, known, ids, used, as fill.lua left them. ARGV: epoch, the stamp of the memory that is carried over
-- ('' for none), pending claims, ids, customers, milliseconds of a lease, then fields of the head
-- Answers: 0 if a memory that can be trusted holds this epoch or a later one, 1 and what was there before; or a word if
-- parts are missing, or the memory is not the one that was read.

local sale, why = recall()
if sale and sale.epoch >= tonumber(ARGV[1]) then return { 0 } end
if (sale and sale.stamp or '') ~= ARGV[2] then return 'another memory' end
local pending, known, customers = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.pcall('HLEN', KEYS[6]) ~= pending or redis.pcall('SCARD', KEYS[7]) ~= known
    or redis.pcall('STRLEN', KEYS[8]) ~= 16 * known or redis.pcall('HLEN', KEYS[9]) ~= customers then
    return 'incomplete'
end
local fields = {
    'format', FORMAT, 'life', life(), 'epoch', ARGV[1], 'live', 0,
    'pending', ARGV[3], 'known', ARGV[4], 'customers', ARGV[5],
}
for number = 7, #ARGV do fields[#fields + 1] = ARGV[number] end
-- A lease outlives the memory that gave it, also one that cannot be read any more: every one that there may be is waited out.
local lease_ms = tonumber(ARGV[6])
for number = 7, #ARGV, 2 do
    local sku = lease_ms > 0 and ARGV[number]:match('^sku:(.*)$')
    if sku then
        fields[#fields + 1] = 'lease:' .. sku
        fields[#fields + 1] = server_time() + lease_ms + 1
    end
end

redis.call('UNLINK', unpack(KEYS, 1, 5))
for part = 2, 5 do
    if redis.call('EXISTS', KEYS[part + 4]) == 1 then
        redis.call('RENAME', KEYS[part + 4], KEYS[part])
        redis.call('PERSIST', KEYS[part])
    end
end
redis.call('HSET', KEYS[1], unpack(fields))
return { 1, why or 'an earlier epoch' }
