-- A page of the pending claims: Gate::pending. ARGV: cursor, claims at most, more or less.
-- Answers: epoch, stamp, next cursor, then the claims as JSON. A claim that is pending from the first page to the last
-- is on one of them, perhaps on two.

local sale, why = recall()
if not sale then return why end
local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local answer = { sale.epoch, sale.stamp, page[1] }
for number = 2, #page[2], 2 do
    answer[#answer + 1] = page[2][number]
end
return answer
