-- What the latch in front of the gate asks: are there units again, and who was admitted meanwhile?
-- ARGV: stamp, ids that are known to the asker already, ids at most, then SKUs
-- Answers: live, phase, opens_at, closes_at, number of all ids, the ids behind those known already as one string, and
-- per SKU: available, may return

local sale, why = recall()
if not sale then return why end
if sale.stamp ~= ARGV[1] then return 'of another load' end
local from, to = tonumber(ARGV[2]), math.min(sale.known, ARGV[2] + ARGV[3])
local ids = ''
if to > from then ids = redis.call('GETRANGE', KEYS[4], 16 * from, 16 * to - 1) end
local answer = { sale.live, sale.phase, sale.opens_at or '', sale.closes_at or '', sale.known, ids }
for number = 4, #ARGV do
    local found = item(ARGV[number])
    if not found then return 'damaged' end
    answer[#answer + 1] = found.available
    answer[#answer + 1] = may_return(sale, found) and 1 or 0
end
return answer
