-- Brings a part of a snapshot to keys of its own, where load.lua finds it; a part whose loader dies goes by itself.
-- KEYS: known, ids, used, all of this load alone. ARGV: milliseconds to live, ids as one string, then customer, units, …

local ids = {}
for from = 1, #ARGV[2], 16 do
    ids[#ids + 1] = ARGV[2]:sub(from, from + 15)
end
if #ids > 0 then
    redis.call('SADD', KEYS[1], unpack(ids))
    redis.call('APPEND', KEYS[2], ARGV[2])
end
if #ARGV > 2 then redis.call('HSET', KEYS[3], unpack(ARGV, 3)) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return 1
