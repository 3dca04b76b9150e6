-- Puts a snapshot in the place of what is remembered: Gate::load.
-- KEYS[6..8]: known, ids, used, as fill.lua left them. ARGV: epoch, ids, customers, then fields of the head
-- Answers: 0 if a memory that can be trusted holds this epoch or a later one, 1 and what was there before; or the word
-- "incomplete" if parts are missing.

local sale, why = recall()
if sale and sale.epoch >= tonumber(ARGV[1]) then return { 0 } end
local known, customers = tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.pcall('SCARD', KEYS[6]) ~= known or redis.pcall('STRLEN', KEYS[7]) ~= 16 * known
    or redis.pcall('HLEN', KEYS[8]) ~= customers then
    return 'incomplete'
end
local fields = {
    'format', FORMAT, 'life', life(), 'epoch', ARGV[1], 'live', 0, 'pending', 0, 'known', ARGV[2], 'customers', ARGV[3],
}
for number = 4, #ARGV do fields[#fields + 1] = ARGV[number] end

redis.call('UNLINK', unpack(KEYS, 1, 5))
for part = 3, 5 do
    if redis.call('EXISTS', KEYS[part + 3]) == 1 then
        redis.call('RENAME', KEYS[part + 3], KEYS[part])
        redis.call('PERSIST', KEYS[part])
    end
end
redis.call('HSET', KEYS[1], unpack(fields))
return { 1, why or 'an earlier epoch' }
