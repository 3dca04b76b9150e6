-- Brings a part of a snapshot to keys of its own, where load.lua finds it; a part whose loader dies goes by itself.
-- KEYS: known, ids, used, all of this load alone. ARGV: milliseconds to live, ids as one string, then customer, units, …
-- Answers: how many ids, and how many customers, were not there before.

local fresh, seen, customers = {}, {}, 0
for from = 1, #ARGV[2], 16 do
    local id = ARGV[2]:sub(from, from + 15)
    if not seen[id] and redis.call('SISMEMBER', KEYS[1], id) == 0 then
        seen[id] = true
        fresh[#fresh + 1] = id
    end
end
if #fresh > 0 then
    redis.call('SADD', KEYS[1], unpack(fresh))
    redis.call('APPEND', KEYS[2], table.concat(fresh))
end
if #ARGV > 2 then customers = redis.call('HSET', KEYS[3], unpack(ARGV, 3)) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return { #fresh, customers }
