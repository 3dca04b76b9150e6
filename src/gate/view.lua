-- What the gate knows of a sale, at one moment: Gate::view.
-- Answers: epoch, live, watermark, number of pending claims, SKUs, then per SKU: available, pending

local sale, why = recall()
if not sale then return why end
local answer = { sale.epoch, sale.live, sale.watermark, sale.pending, sale.skus }
for sku in sale.skus:gmatch('[^\n]+') do
    local found = item(sku)
    if not found then return 'damaged' end
    answer[#answer + 1] = found.available
    answer[#answer + 1] = found.pending
end
return answer
