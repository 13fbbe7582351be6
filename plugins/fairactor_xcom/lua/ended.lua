-- Stores the values of a finished task under its tenant and run. `data` is {run, {{key, value, ms to keep it or 0 for
-- ever}, ...}}. Values of failed attempts do not get here.

-- @takes integer, write_all from lib/base.lua

if data and state == 'F' then
  local run, values = data[1], data[2]
  local run_key, longest = OWN .. #name .. ':' .. name .. run, 0
  later[#later + 1] = function()
    local before, fields = call('PTTL', run_key), {}
    for _, pushed in ipairs(values) do
      local key, value, ms = pushed[1], pushed[2], pushed[3]
      longest = ms == 0 and math.huge or math.max(longest, ms)
      local packed = struct.pack('>dd', ms == 0 and 0 or shard.ms + ms, shard.now) .. value
      fields[#fields + 1], fields[#fields + 2] = struct.pack('>Hc0', #id, id) .. key, packed
      fields[#fields + 1], fields[#fields + 2] = struct.pack('>H', 0) .. key, packed -- the run's last one
    end
    write_all('HSET', run_key, fields)
    if longest == math.huge then
      call('PERSIST', run_key)
    elseif before ~= -1 and before < longest then -- -1: some value is kept for ever
      call('PEXPIRE', run_key, integer(longest))
    end
  end
end
