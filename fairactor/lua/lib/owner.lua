-- Which tasks a caller may see: its tenant's, or those of all tenants if it names none.

-- @include lib/base.lua

-- Whether the task of a readable record is the tenant's; '' is any tenant.
local function is_owned_by(tenant, record) return tenant == '' or tenant == tenant_of(record) end
