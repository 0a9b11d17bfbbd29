//! HDR histograms fed from every span: rate, errors and duration per service, operation, kind and status.
