-- Repairs limits: counts again what runs, and lets tenants line up anew.

-- @include lib/base.lua
-- @include lib/lanes.lua
-- @takes found from mend.lua

local function repair_limits()
  for _, prefix in ipairs({ LINES, LINES_OF, LINE, LINE_GROUP, LINE_GROUPS }) do
    for _, rest in ipairs(found[prefix]) do call('DEL', prefix .. rest) end
  end
  call('DEL', HELD_BACK, LIMIT_CLOCKS, LIMIT_STARTED)
  for _, runtime in ipairs(found[CLAIMS]) do
    for n, mark in ipairs(call('HGETALL', CLAIMS .. runtime)) do
      local taken = n % 2 == 0 and taken_in(mark) or {}
      for i = 1, #taken, 2 do call('HINCRBY', LIMIT_STARTED, taken[i], 1) end
    end
  end
  local in_use = call('EXISTS', LIMIT_SETTINGS, LIMIT_STARTED) > 0
  for _, lane in ipairs(lanes and call('HKEYS', LANES) or {}) do in_use = in_use or lanes.fields_of(lane)[4] end
  if not in_use then return end
  call('HSET', META, 'lanes', '1', 'limited', '1', 'routed', '1')
  open_lanes()
  open_limits()
end
