-- What the latch in front of the gate asks: are there units again, who was admitted meanwhile, and may it say "sold out" for a
-- while without asking?
-- ARGV: stamp, ids that are known to the asker already, ids at most, now, milliseconds of a lease, then SKUs
-- Answers: 1 if the sale has ended, number of all ids, the ids behind those known already as one string, milliseconds of the
-- leases given, and per SKU: 0 ask the gate, 1 sold out, 2 sold out and may return
-- A SKU that is said to be sold out is leased, if the asker now knows every id.

local sale, why = recall()
if not sale then return why end
if sale.stamp ~= ARGV[1] then return 'of another load' end
local from, to = tonumber(ARGV[2]), math.min(sale.known, ARGV[2] + ARGV[3])
local ids = ''
if to > from then ids = redis.call('GETRANGE', KEYS[4], 16 * from, 16 * to - 1) end

local now, lease_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local is = state(sale, now)
-- Nobody is told "sold out" by a lease when "ended" would be the word.
if sale.closes_at then lease_ms = math.min(lease_ms, math.max(0, sale.closes_at - now)) end
if to < sale.known then lease_ms = 0 end
local answer = { is == 'ended' and 1 or 0, sale.known, ids, lease_ms }
local leases = {}
for number = 6, #ARGV do
    local sku = ARGV[number]
    local found = item(sku)
    if not found then return 'damaged' end
    local word = 0
    if sale.live == 1 and is == 'open' and found.available == 0 then
        word = may_return(sale, found) and 2 or 1
        leases[#leases + 1] = 'lease:' .. sku
        -- A millisecond more, because the server's time is cut off.
        leases[#leases + 1] = math.max(lease_end(sku), server_time() + lease_ms + 1)
    end
    answer[#answer + 1] = word
end
if lease_ms > 0 and #leases > 0 then redis.call('HSET', KEYS[1], unpack(leases)) end
return answer
