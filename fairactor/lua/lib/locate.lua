-- Returns where a live task stands, which is its state: nothing else records it. A suspect is queued, too.

-- @include lib/base.lua

local function locate(id, record)
  if record:sub(1, 1) ~= LIVE then return 'settled' end
  local name = tenant_of(record)
  if call('ZSCORE', QUEUE .. name, id) or call('ZSCORE', SUSPECTS .. name, id) then return 'queued' end
  if call('ZSCORE', DELAYED .. name, id) then return 'scheduled' end
  for _, runtime in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    if call('HEXISTS', CLAIMS .. runtime, id) == 1 then return 'started', runtime end
  end
  return 'deferred'
end
