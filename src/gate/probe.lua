-- What the latch in front of the gate asks: are there units again, and who was admitted meanwhile?
-- ARGV: signs of the asker's last answer or '', stamp, ids that are known to the asker already, ids at most, then SKUs
-- Answers: 1 if that answer still holds; or signs, live, phase, opens_at, closes_at, number of all ids, the ids behind those
-- known already as one string, and per SKU: available, may return

-- Whatever changes an answer changes one of these: a load the stamp, an opening or a shutting `live`, an admitted claim the
-- number of ids, and the journal the watermark. Most probes of a sold-out sale end here.
local signs = ''
local seen = redis.pcall('HMGET', KEYS[1], 'life', 'stamp', 'live', 'known', 'watermark')
if not seen.err then
    for _, sign in ipairs(seen) do signs = signs .. tostring(sign) .. ' ' end
    local history, is_primary = life()
    if signs == ARGV[1] and seen[1] == history and is_primary then return 1 end
end

local sale, why = recall()
if not sale then return why end
if sale.stamp ~= ARGV[2] then return 'of another load' end
local from, to = tonumber(ARGV[3]), math.min(sale.known, ARGV[3] + ARGV[4])
local ids = ''
if to > from then ids = redis.call('GETRANGE', KEYS[4], 16 * from, 16 * to - 1) end
local answer = { signs, sale.live, sale.phase, sale.opens_at or '', sale.closes_at or '', sale.known, ids }
for number = 5, #ARGV do
    local found = item(ARGV[number])
    if not found then return 'damaged' end
    answer[#answer + 1] = found.available
    answer[#answer + 1] = may_return(sale, found) and 1 or 0
end
return answer
