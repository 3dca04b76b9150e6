-- A load begins: an earlier epoch admits nothing more, so that whatever is pending now is all there is to carry over.
-- ARGV: epoch. Answers: 0 if a memory that can be trusted holds this epoch or a later one, or 1 and its stamp.

local sale, why = recall()
if not sale then return why end
if sale.epoch >= tonumber(ARGV[1]) then return { 0 } end
if sale.live == 1 then redis.call('HSET', KEYS[1], 'live', 0) end
return { 1, sale.stamp }
