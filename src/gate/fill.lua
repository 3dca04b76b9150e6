-- Brings a part of a snapshot to keys of its own, where load.lua finds it; a part whose loader dies goes by itself.
-- KEYS: pending, known, ids, used, all of this load alone. ARGV: milliseconds to live, ids as one string, number of claims
-- that stay pending, id and claim as JSON of each, then customer, units, …
-- Answers: how many claims, ids and customers were not there before.

local fresh, seen, claims, customers = {}, {}, 0, 0
for from = 1, #ARGV[2], 16 do
    local id = ARGV[2]:sub(from, from + 15)
    if not seen[id] and redis.call('SISMEMBER', KEYS[2], id) == 0 then
        seen[id] = true
        fresh[#fresh + 1] = id
    end
end
local used_at = 4 + 2 * tonumber(ARGV[3])
if used_at > 4 then claims = redis.call('HSET', KEYS[1], unpack(ARGV, 4, used_at - 1)) end
if #fresh > 0 then
    redis.call('SADD', KEYS[2], unpack(fresh))
    redis.call('APPEND', KEYS[3], table.concat(fresh))
end
if #ARGV >= used_at then customers = redis.call('HSET', KEYS[4], unpack(ARGV, used_at)) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return { claims, #fresh, customers }
